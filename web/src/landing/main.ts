// Entry of the landing page: it has text only.

import '../shared/style.css';
