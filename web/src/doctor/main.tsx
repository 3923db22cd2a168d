// Entry of the doctor's page.

import { render } from 'preact';
import '../shared/style.css';
import { App } from './app';
import { DeskController } from './controller';

const controller = new DeskController();
const root = document.getElementById('app');
if (root) render(<App controller={controller} />, root);
void controller.open();

// A newer link opened in the same tab changes only the fragment, which loads nothing by itself.
window.addEventListener('hashchange', () => location.reload());
