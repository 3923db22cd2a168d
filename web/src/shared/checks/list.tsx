// Findings of a connection check, for the person and for the clinic alike.

import type { CheckReport, Finding } from './report';
import { findingWords, measuredWords, outcomeWords, subjectWords, verdict } from './words';

export function FindingRow(props: { finding: Finding }) {
  const { finding } = props;
  const words = findingWords(finding);
  return (
    <li class={`finding finding-${finding.outcome}`}>
      <span class="finding-mark" aria-hidden="true" />
      <div>
        <p class="finding-head">
          <strong>{subjectWords(finding.subject)}</strong> <span>{outcomeWords(finding)}</span>
        </p>
        {words && (
          <p class="hint">
            {words.title} {words.advice}
          </p>
        )}
      </div>
    </li>
  );
}

/** The whole report: the sentence that counts, then all of it. */
export function ReportView(props: { report: CheckReport }) {
  const { report } = props;
  const all = verdict(report);
  return (
    <>
      <div class={`verdict verdict-${all.tone}`} role="status">
        <p>
          <strong>{all.title}</strong> {all.advice}
        </p>
      </div>
      <ul class="findings">
        {report.findings.map((finding) => (
          <FindingRow key={finding.subject} finding={finding} />
        ))}
      </ul>
      {report.measured && (
        <dl class="measured">
          {measuredWords(report.measured).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}
