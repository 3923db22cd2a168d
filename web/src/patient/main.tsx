// Entry of the patient's page.

import { render } from 'preact';
import '../shared/style.css';
import { App } from './app';
import { VisitController } from './controller';

const controller = new VisitController();
const root = document.getElementById('app');
if (root) render(<App controller={controller} />, root);
void controller.open();

// A newer link opened in the same tab changes only the fragment, which loads nothing by itself.
window.addEventListener('hashchange', () => location.reload());
