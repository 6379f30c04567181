// The services: a line each, their backends below where one is open. What is not on the screen is not drawn.

const view = { text: '', order: 'problems', open: new Set() };
const lines = new Map();
let latest = null;
let lineNumber = 0;

const onScreen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const line = entry.target.line;
    line.isSeen = entry.isIntersecting;
    if (line.isSeen) line.draw();
  }
}, { rootMargin: '200px' });

class Line {
  constructor(name) {
    this.name = name;
    this.isSeen = false;
    /** The filter is about its backends. */
    this.isForced = false;
    this.inside = null;
    this.id = `backends-${lineNumber += 1}`;
    this.state = make('span', { class: 'state' });
    this.button = make('button', { type: 'button', 'aria-expanded': 'false', 'aria-controls': this.id }, make('span', { class: 'turn', 'aria-hidden': 'true' }), make('span', { class: 'name' }, name), ' ', this.state);
    this.button.addEventListener('click', () => toggle(this.name));
    this.where = make('p', { class: 'where' });
    const number = (label) => make('span', { class: 'num', 'data-label': label });
    this.ready = number('backends');
    this.packets = number('packets/s');
    this.bits = number('bits/s');
    this.flows = number('new flows/s');
    this.spark = new Spark();
    const head = make('div', { class: 'brief' }, make('div', { class: 'who' }, make('h3', {}, this.button), this.where), this.ready, this.spark.node, this.packets, this.bits, this.flows);
    this.node = make('article', { class: 'service' }, head);
    this.node.line = this;
    onScreen.observe(this.node);
  }

  /** What sorting, filtering and reading aloud need is there at once; the rest when it can be seen. */
  take(service, backends) {
    this.service = service;
    this.backends = backends;
    this.isForced = backends.length < service.backends.length;
    mark(this.node, 'data-state', service.state);
    say(this.state, service.state);
    mark(this.state, 'data-state', service.state);
    if (this.isSeen) this.draw();
  }

  draw() {
    const { service } = this;
    const track = tracks.get(ofService(service));
    const healthy = service.backends.filter((backend) => backend.health === 'healthy').length;
    say(this.where, `${service.address} ${service.protocol} · ${service.forwarding} · ${service.algorithm}`);
    say(this.ready, `${healthy} of ${service.backends.length} healthy`);
    say(this.packets, scaled(track.rates.packets));
    say(this.bits, scaled(times8(track.rates.bytes)));
    say(this.flows, scaled(track.rates.flows));
    mark(this.packets, 'title', `${exact(service.packets)} packets in all`);
    mark(this.bits, 'title', `${exact(service.bytes)} bytes in all`);
    mark(this.flows, 'title', `${exact(service.new_flows)} new flows in all`);
    this.spark.draw(track.values);
    const open = this.isForced || view.open.has(this.name);
    mark(this.button, 'aria-expanded', String(open));
    if (open && this.inside === null) {
      this.inside = new BackendTable(this.id, this.name);
      this.node.append(this.inside.node);
    } else if (!open && this.inside !== null) {
      this.inside.node.remove();
      this.inside = null;
    }
    this.inside?.show(service, this.backends);
  }

  remove() {
    onScreen.unobserve(this.node);
  }
}

/** Those that fit the filter, with those of their backends that do: all of them where it is the service that fits. */
function chosen(answer) {
  const words = view.text.toLowerCase().split(/\s+/).filter((word) => word !== '');
  const fits = (text) => words.every((word) => text.includes(word));
  const found = [];
  for (const service of answer.services) {
    const own = `${service.name} ${service.address} ${service.protocol} ${service.forwarding} ${service.algorithm} ${service.state}`;
    if (words.length === 0 || fits(own)) {
      found.push([service, service.backends]);
      continue;
    }
    const backends = service.backends.filter((one) => fits(`${own} ${one.name} ${one.address} ${stateOf(one)} ${detailOf(one)}`.toLowerCase()));
    if (backends.length > 0) found.push([service, backends]);
  }
  return found;
}

const BY_NAME = ([a], [b]) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
const byRate = (key) => ([a], [b]) => (tracks.get(ofService(b)).rates[key] ?? -1) - (tracks.get(ofService(a)).rates[key] ?? -1);
const ORDERS = {
  problems: ([a], [b]) => rank(b) - rank(a),
  name: BY_NAME,
  packets: byRate('packets'),
  bytes: byRate('bytes'),
  flows: byRate('flows'),
};

/** `isAsked`: by whoever looks at it. Lines do not move by themselves under a pointer or a keyboard's focus. */
function showServices(answer, isAsked) {
  latest = answer;
  const parent = byId('services');
  const found = chosen(answer).sort(BY_NAME).sort(ORDERS[view.order]);
  const holds = !isAsked && (parent.contains(document.activeElement) || (matchMedia('(hover: hover)').matches && parent.matches(':hover')));
  const present = new Set();
  for (const [service, backends] of found) {
    present.add(service.name);
    let line = lines.get(service.name);
    if (line === undefined) {
      line = new Line(service.name);
      lines.set(service.name, line);
    }
    line.take(service, [...backends].sort((a, b) => isAmiss(b) - isAmiss(a)));
  }
  for (const [name, line] of lines) {
    if (present.has(name)) continue;
    line.remove();
    line.node.remove();
    lines.delete(name);
  }
  const stay = holds ? [...parent.children].map((node) => node.line.name) : [];
  const names = new Set([...stay, ...found.map(([service]) => service.name)]);
  arrange(parent, [...names].map((name) => lines.get(name).node));
  const all = answer.services.length;
  say(byId('services-count'), found.length === all ? exact(all) : `${exact(found.length)} of ${exact(all)}`);
  hide(byId('nothing'), found.length > 0);
  say(byId('nothing'), all === 0 ? 'There are no services.' : 'Nothing fits the filter.');
}

function toggle(name) {
  if (!view.open.delete(name)) view.open.add(name);
  lines.get(name)?.draw();
}

/** Opens a service and goes there, whatever is filtered. */
function reveal(name) {
  if (!lines.has(name)) {
    view.text = byId('filter').value = '';
    showServices(latest, true);
  }
  view.open.add(name);
  const line = lines.get(name);
  if (line === undefined) return;
  line.draw();
  line.node.scrollIntoView({ block: 'start' });
  line.button.focus({ preventScroll: true });
}
