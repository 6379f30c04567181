// Asking again and again, and saying so when nobody answers.

const SHOWN = 2000;
const HIDDEN = 30000;
const PATIENCE = 8000;
const LATE = 3000;
/** Asking takes at most this part of the time, however large the answer is. */
const PART = 10;

const link = { answered: null, trouble: null, paused: false, timer: null, pause: SHOWN, asking: false, pageIsOld: false };

async function ask() {
  clearTimeout(link.timer);
  if (link.asking) return;
  link.asking = true;
  const began = performance.now();
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`it answers with status ${answer.status}`);
    accept(await answer.json());
    link.answered = performance.now();
    link.trouble = null;
  } catch (error) {
    link.trouble = error.name === 'TimeoutError' ? 'it is silent' : error.name === 'TypeError' ? 'it can’t be reached' : error.message;
  }
  link.asking = false;
  showLink();
  link.pause = Math.max(document.hidden ? HIDDEN : SHOWN, (performance.now() - began) * PART);
  if (!link.paused) link.timer = setTimeout(ask, link.pause);
}

function accept(answer) {
  link.pageIsOld = answer.page !== document.documentElement.dataset.page;
  if (link.pageIsOld) return;
  remember(answer);
  showVerdict(answer, problemsOf(answer));
  showTiles(answer);
  showServices(answer, false);
  showDrops(answer);
  showFacts(answer);
}

function showLink() {
  const age = link.answered === null ? null : (performance.now() - link.answered) / 1000;
  let [state, text] = age === null ? ['connecting', 'Asking'] : ['live', 'Live'];
  if (age !== null && age * 1000 > link.pause + LATE) [state, text] = ['late', 'The daemon is slow to answer'];
  if (link.paused) [state, text] = ['paused', 'Paused'];
  if (link.pageIsOld) [state, text] = ['lost', 'The daemon has another version than this page: load it again'];
  if (link.trouble !== null) {
    [state, text] = ['lost', `The daemon does not answer: ${link.trouble}. Traffic goes by the last table; what is below is old`];
  }
  mark(document.body, 'data-link', state);
  say(byId('link'), text);
  say(byId('age'), age === null ? '' : age < 3 ? 'now' : `${duration(age)} ago`);
}

function controls() {
  const again = () => latest !== null && showServices(latest, true);
  byId('filter').addEventListener('input', (event) => {
    view.text = event.target.value;
    again();
  });
  byId('sort').addEventListener('change', (event) => {
    view.order = event.target.value;
    again();
  });
  byId('expand').addEventListener('click', () => {
    for (const node of byId('services').children) view.open.add(node.line.name);
    again();
  });
  byId('collapse').addEventListener('click', () => {
    view.open.clear();
    for (const line of lines.values()) if (line.inside !== null) line.draw();
  });
  byId('pause').addEventListener('click', () => {
    link.paused = !link.paused;
    mark(byId('pause'), 'aria-pressed', String(link.paused));
    if (link.paused) clearTimeout(link.timer);
    else ask();
    showLink();
  });
  document.addEventListener('keydown', (event) => {
    const isTyping = event.target.matches('input, select');
    if (event.key === '/' && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId('filter').focus();
    } else if (event.key === 'Escape' && event.target === byId('filter')) {
      view.text = event.target.value = '';
      again();
    }
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && !link.paused) ask();
  });
}

for (const id of ['bar', 'main', 'foot']) hide(byId(id), false);
controls();
setInterval(showLink, 1000);
ask();
