// The backends of one service, as a table that becomes cards where the screen is narrow.

const COLUMNS = ['backend', 'address', 'state', 'weight', 'share', 'flows', 'packets/s', 'bits/s', 'new flows/s', 'trend'];
const NUMBERS = new Set(['weight', 'flows', 'packets/s', 'bits/s', 'new flows/s']);

class BackendTable {
  constructor(id, service) {
    const heads = COLUMNS.map((name) => make('th', NUMBERS.has(name) ? { scope: 'col', role: 'columnheader', class: 'num' } : { scope: 'col', role: 'columnheader' }, name));
    this.body = make('tbody', { role: 'rowgroup' });
    // Where the parts are laid out anew, browsers forget that it is a table: so the roles.
    const table = make('table', { role: 'table', class: 'backends', 'aria-label': `Backends of ${service}` }, make('thead', { role: 'rowgroup' }, make('tr', { role: 'row' }, ...heads)), this.body);
    this.notes = make('ul', { class: 'notes' });
    this.node = make('div', { id, class: 'inside' }, table, this.notes);
    this.rows = new Listing(this.body, () => new BackendRow());
    this.noteList = new Listing(this.notes, () => ({ node: make('li') }));
  }

  show(service, backends) {
    this.rows.show(backends, (backend) => backend.name, (row, backend) => row.show(service, backend));
    const leaving = (service.leaving ?? []).map((one) => `${one.name ?? 'A backend'} at ${one.address} is gone and keeps ${counted(one.flows, 'flow')} for at most ${duration(one.drain_seconds_left)}`);
    const sources = (service.sources ?? []).map((one) => `${counted(one.backends, 'backend')} from ${one.kind} ${one.place}, ${duration(one.age_seconds)} ago${one.failing ? '; it does not answer as it should' : ''}`);
    const none = service.backends.length === 0 ? ['It has no backends'] : [];
    this.noteList.show([...none, ...leaving, ...sources], (note) => note, (part, note) => say(part.node, note));
    hide(this.body.parentNode, service.backends.length === 0);
  }
}

class BackendRow {
  constructor() {
    this.cells = {};
    const cell = (name) => {
      const node = make(name === 'backend' ? 'th' : 'td', { role: name === 'backend' ? 'rowheader' : 'cell', 'data-label': name });
      if (name === 'backend') node.setAttribute('scope', 'row');
      if (NUMBERS.has(name)) node.className = 'num';
      this.cells[name] = node;
      return node;
    };
    this.node = make('tr', { role: 'row' }, ...COLUMNS.map(cell));
    this.name = make('span', { class: 'name' });
    this.tags = make('span', { class: 'tags' });
    this.cells.backend.append(this.name, ' ', this.tags);
    this.state = make('span', { class: 'state' });
    this.detail = make('span', { class: 'detail' });
    this.cells.state.append(this.state, ' ', this.detail);
    this.bar = make('span', { class: 'part' });
    this.share = make('span');
    this.cells.share.append(this.share, make('span', { class: 'gauge', 'aria-hidden': 'true' }, this.bar));
    this.spark = new Spark();
    this.cells.trend.append(this.spark.node);
  }

  show(service, backend) {
    const { cells } = this;
    const track = tracks.get(ofBackend(service, backend));
    say(this.name, backend.name);
    say(this.tags, tagsOf(backend).join(', '));
    say(cells.address, backend.address);
    say(this.state, stateOf(backend));
    mark(this.state, 'data-state', backend.admin ?? backend.health);
    mark(this.node, 'data-amiss', isAmiss(backend) ? '' : null);
    say(this.detail, detailOf(backend));
    say(cells.weight, exact(backend.weight));
    say(this.share, percent(backend.share));
    this.bar.style.width = `${backend.share * 100}%`;
    say(cells.flows, exact(backend.flows));
    say(cells['packets/s'], scaled(track.rates.packets));
    say(cells['bits/s'], scaled(times8(track.rates.bytes)));
    say(cells['new flows/s'], scaled(track.rates.flows));
    mark(cells['packets/s'], 'title', `${exact(backend.packets)} packets in all`);
    mark(cells['bits/s'], 'title', `${exact(backend.bytes)} bytes in all`);
    mark(cells['new flows/s'], 'title', `${exact(backend.new_flows)} new flows in all`);
    this.spark.draw(track.values);
  }
}

function tagsOf(backend) {
  const tags = [];
  if (backend.backup) tags.push('backup');
  if (backend.overrides !== undefined) tags.push(`${backend.overrides.join(' and ')} set over the file`);
  return tags;
}

/** What the administrator wants goes before what probes found. */
function stateOf(backend) {
  return backend.admin === undefined ? backend.health : `${backend.admin}, ${backend.health}`;
}

function detailOf(backend) {
  const parts = [];
  if (backend.detail !== undefined) parts.push(backend.detail);
  if (backend.unreachable) parts.push('its next hop has no MAC address');
  if (backend.drained && backend.admin === 'draining') parts.push('drained: no flow is left');
  else if (backend.drain_seconds_left !== undefined) parts.push(`drains for at most ${duration(backend.drain_seconds_left)}`);
  return parts.join('; ');
}
