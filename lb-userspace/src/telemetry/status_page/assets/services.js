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

/** A number below a heading, which is told to those who do not see the heading. */
class Figure {
  constructor(label) {
    this.value = make('span');
    this.node = make('span', { class: 'num', 'data-label': label }, this.value, make('span', { class: 'aside' }, ` ${label}`));
  }

  show(value, title) {
    say(this.value, value);
    mark(this.node, 'title', title);
  }
}

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
    this.ready = new Figure('healthy');
    this.packets = new Figure('packets/s');
    this.bits = new Figure('bits/s');
    this.flows = new Figure('new flows/s');
    this.spark = new Spark();
    const head = make('div', { class: 'brief' }, make('div', { class: 'who' }, make('h3', {}, this.button), this.where), this.ready.node, this.spark.node, this.packets.node, this.bits.node, this.flows.node);
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
    this.ready.show(`${healthy} of ${service.backends.length}`, '');
    this.packets.show(scaled(track.rates.packets), `${exact(service.packets)} packets in all`);
    this.bits.show(scaled(times8(track.rates.bytes)), `${exact(service.bytes)} bytes in all`);
    this.flows.show(scaled(track.rates.flows), `${exact(service.new_flows)} new flows in all`);
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

  end() {
    onScreen.unobserve(this.node);
    lines.delete(this.name);
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
  for (const [service, backends] of found) {
    let line = lines.get(service.name);
    if (line === undefined) {
      line = new Line(service.name);
      lines.set(service.name, line);
    }
    line.take(service, [...backends].sort((a, b) => isAmiss(b) - isAmiss(a)));
  }
  // Those that the filter leaves out are kept for when it does not.
  const all = new Set(answer.services.map((service) => service.name));
  for (const [name, line] of lines) if (!all.has(name)) line.end();
  const nodes = found.map(([service]) => lines.get(service.name).node);
  arrange(parent, holds ? keptOrder(parent, nodes) : nodes);
  say(byId('services-count'), found.length === all.size ? exact(all.size) : `${exact(found.length)} of ${exact(all.size)}`);
  hide(byId('nothing'), found.length > 0);
  say(byId('nothing'), all.size === 0 ? 'There are no services.' : 'Nothing fits the filter.');
}

/** Those that are there stay where they are, and new ones come behind them. */
function keptOrder(parent, nodes) {
  const wanted = new Set(nodes);
  return [...new Set([...[...parent.children].filter((node) => wanted.has(node)), ...nodes])];
}

function toggle(name) {
  if (!view.open.delete(name)) view.open.add(name);
  lines.get(name)?.draw();
}

/** Opens a service and goes there, whatever is filtered. */
function reveal(name) {
  if (lines.get(name)?.node.isConnected !== true) {
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
