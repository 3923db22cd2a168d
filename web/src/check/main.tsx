// Entry of the check's page. `?clinic=…` names the clinic that may look the result up.

import { render } from 'preact';
import '../shared/style.css';
import { App } from './app';
import { CheckController } from './controller';

const clinic = new URLSearchParams(location.search).get('clinic');
const root = document.getElementById('app');
if (root) render(<App controller={new CheckController(clinic)} />, root);
