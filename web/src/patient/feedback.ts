// What the patient says of the consultation: the form as data, and what it becomes for the server.
//
// Pure: the form shows it, the controller sends it.

import type { Feedback } from '../shared/types';

/** The tags that the form offers, as they are read. */
export const TAGS = [
  'Professional',
  'Friendly',
  'Knowledgeable',
  'On-time',
  'Patient',
  'Clear explanations',
  'Good listener',
  'Thorough',
] as const;

export const STARS = [1, 2, 3, 4, 5] as const;

/** What a number of stars means. */
export const STAR_WORDS = ['Very bad', 'Bad', 'Fair', 'Good', 'Very good'] as const;

/** The longest review, in characters as the server counts them. */
export const MAX_REVIEW = 5_000;

/** The form as it stands; 0 stars and `null` = not answered. */
export interface Draft {
  overall: number;
  audio: number;
  video: number;
  doctor: number;
  tags: ReadonlySet<string>;
  review: string;
  recommend: boolean | null;
}

export const EMPTY: Draft = {
  overall: 0,
  audio: 0,
  video: 0,
  doctor: 0,
  tags: new Set(),
  review: '',
  recommend: null,
};

/** The draft with a tag pressed. */
export function withTag(draft: Draft, tag: string): Draft {
  const tags = new Set(draft.tags);
  if (!tags.delete(tag)) tags.add(tag);
  return { ...draft, tags };
}

/** How many characters of a review are left. */
export function charactersLeft(review: string): number {
  return MAX_REVIEW - [...review].length;
}

/** What must be answered before it can be sent, in words; `null` = nothing. */
export function missing(draft: Draft): string | null {
  if (draft.overall === 0) return 'Please choose from one to five stars.';
  if (charactersLeft(draft.review) < 0) return 'Your text is too long.';
  return null;
}

/** What is sent. Questions that were not answered are left out, and so is a picture nobody saw. */
export function toSend(draft: Draft, voiceOnly: boolean): Feedback {
  const review = draft.review.trim();
  return {
    overallRating: draft.overall,
    ...(draft.audio > 0 && { audioQuality: draft.audio }),
    ...(draft.video > 0 && !voiceOnly && { videoQuality: draft.video }),
    ...(draft.doctor > 0 && { doctorBehaviour: draft.doctor }),
    ...(review !== '' && { reviewText: review }),
    feedbackTags: TAGS.filter((tag) => draft.tags.has(tag)),
    ...(draft.recommend !== null && { wouldRecommend: draft.recommend }),
  };
}
