// The verdict, the totals, drops and what there is to say of the daemon.

const LEVELS = { bad: '#d1242f', warn: '#bf8700', good: '#1a7f37', wait: '#818b98' };

const problemList = new Listing(byId('problems'), () => {
  const text = make('span');
  return { node: make('li', {}, text), text };
});

function showVerdict(answer, problems) {
  const level = problems.length === 0 ? 'good' : problems[0].level;
  const backends = answer.services.flatMap((service) => service.backends);
  const healthy = backends.filter((backend) => backend.health === 'healthy').length;
  const all = `${counted(answer.services.length, 'service')}, ${healthy} of ${counted(backends.length, 'backend')} healthy`;
  say(byId('verdict-text'), problems.length === 0 ? `All is well: ${all}` : `${counted(problems.length, 'problem')}; ${all}`);
  mark(byId('verdict'), 'data-level', level);
  const shown = problems.slice(0, MOST_SHOWN);
  if (problems.length > shown.length) {
    shown.push({ level: 'warn', text: `and ${problems.length - shown.length} more: see the services below` });
  }
  problemList.show(shown, (problem) => `${problem.service ?? problem.text} ${problem.source ?? ''}`, (part, problem) => {
    mark(part.node, 'data-level', problem.level);
    if (problem.service === undefined) return say(part.text, problem.text);
    if (part.link === undefined) {
      part.link = make('button', { type: 'button', class: 'textual' });
      part.link.addEventListener('click', () => reveal(problem.service));
      part.node.replaceChildren(part.link);
    }
    say(part.link, problem.text);
  });
  document.title = `${problems.length > 0 ? `(${problems.length}) ` : ''}${answer.host || 'Ballast'} – Ballast`;
  showIcon(level);
}

function showIcon(level) {
  const drawn = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><circle cx="10" cy="10" r="9" fill="${LEVELS[level]}"/></svg>`;
  mark(byId('icon'), 'href', `data:image/svg+xml,${encodeURIComponent(drawn)}`);
}

const tileList = new Listing(byId('tiles'), (tile) => {
  const value = make('span', { class: 'value' });
  const unit = make('span', { class: 'unit' }, tile.unit);
  const more = make('span', { class: 'more' });
  const spark = new Spark();
  const said = make('dd', {}, value, ' ', unit, more);
  const part = make('span', { class: 'part' });
  said.append(tile.track === undefined ? make('span', { class: 'gauge', 'aria-hidden': 'true' }, part) : spark.node);
  const node = make('div', { class: 'tile', id: `tile-${tile.id}` }, make('dt', {}, tile.title), said);
  return { node, value, more, spark, part };
});

function showTiles(answer) {
  const of = (key, main) => tracks.get(key)?.rates[main] ?? null;
  const { packets, flow_table: flows } = answer;
  const tiles = [
    { id: 'packets', title: 'Received', value: scaled(of('packets', 'packets')), unit: 'packets/s', track: 'packets', more: `${scaled(packets.received)} in all` },
    { id: 'bits', title: 'Forwarded', value: scaled(times8(of('bytes', 'bytes'))), unit: 'bit/s', track: 'bytes', more: `${scaled(packets.tx + packets.redirect)} packets in all` },
    { id: 'flows', title: 'New flows', value: scaled(of('flows', 'flows')), unit: '/s', track: 'flows', more: 'SYNs, and UDP’s first packets' },
    { id: 'drops', title: 'Dropped', value: scaled(of('drops', 'packets')), unit: 'packets/s', track: 'drops', more: `${scaled(packets.drop)} in all` },
    { id: 'table', title: 'Flow table', part: flows.entries / Math.max(flows.capacity, 1), unit: 'full', more: `${scaled(flows.entries)} of ${scaled(flows.capacity)} entries` },
  ];
  tileList.show(tiles, (tile) => tile.id, (part, tile) => {
    say(part.value, tile.value ?? percent(tile.part));
    say(part.more, tile.more);
    if (tile.track === undefined) part.part.style.width = `${tile.part * 100}%`;
    else part.spark.draw(tracks.get(tile.track).values);
  });
}

function times8(bytes) {
  return bytes === null ? null : bytes * 8;
}

const dropList = new Listing(byId('drops'), (drop) => {
  const rate = make('span', { class: 'rate' });
  const count = make('span');
  const spark = new Spark();
  const words = make('p', { class: 'quiet' }, count, ` in all: ${drop.meaning}. `, make('span', { class: 'advice' }, `To do: ${drop.advice}.`));
  const node = make('div', { class: 'drop' }, make('code', {}, drop.reason), spark.node, rate, words);
  return { node, rate, count, spark };
});

function showDrops(answer) {
  const seen = answer.drops.filter((drop) => drop.count > 0).sort((a, b) => b.count - a.count);
  dropList.show(seen, (drop) => drop.reason, (part, drop) => {
    const track = tracks.get(ofDrop(drop.reason));
    say(part.rate, `${scaled(track.rates.packets)}/s`);
    say(part.count, exact(drop.count));
    part.spark.draw(track.values);
  });
  const rest = answer.drops.length - seen.length;
  say(byId('no-drops'), seen.length === 0 ? 'None, for any reason.' : `None for the other ${rest} reasons.`);
}

const factList = new Listing(byId('facts'), (fact) => {
  const value = make('dd');
  return { node: make('div', {}, make('dt', {}, fact.title), value), value };
});

function networkFacts({ announce, held, fleet, peers }) {
  const facts = (announce?.vips ?? []).map((one) => ({
    title: `VIP ${one.vip}`,
    value: one.kept ? 'announced, and lacks backends' : one.announced ? 'announced' : `not announced: ${one.reason}`,
    level: one.kept ? 'warn' : one.announced ? 'good' : one.is_alright ? 'warn' : 'bad',
  }));
  facts.push(...(held ?? []).map((one) => ({
    title: `Address ${one.vip}`,
    value: one.rival ? 'held here and elsewhere' : 'held here',
    level: one.rival ? 'bad' : 'good',
  })));
  if (fleet !== undefined) {
    const members = counted(fleet.members, 'member');
    const value = fleet.connected ? members : `${members} when etcd answered last`;
    facts.push({ title: 'Fleet', value: fleet.unheard ? `${value}, which do not hear of this host` : value, level: fleet.unheard ? 'bad' : fleet.connected ? 'good' : 'warn' });
  }
  facts.push(...(peers?.peers ?? []).map(peerFact));
  if (peers?.joining) facts.push({ title: 'Flow replication', value: 'joining: peers have not told yet which flows there are', level: 'warn' });
  return facts;
}

function peerFact(peer) {
  const said = [peer.state];
  if (peer.hash_key_equal === false) said.push('another hash key');
  if (peer.tables_equal !== undefined) said.push(peer.tables_equal ? 'equal tables' : 'other tables');
  said.push(`flows: ${scaled(peer.flows_sent)} sent, ${scaled(peer.flows_received)} received`);
  if (peer.pending > 0) said.push(`${counted(peer.pending, 'message')} pending`);
  const level = !peer.up || peer.hash_key_equal === false ? 'bad' : peer.tables_equal === false ? 'warn' : 'good';
  return { title: `Peer ${peer.address}`, value: said.join(', '), level };
}

function showFacts(answer) {
  const facts = [
    { title: 'Ready', value: answer.ready ? 'yes' : `no: ${answer.not_ready ?? ''}`, level: answer.ready ? 'good' : 'bad' },
    { title: 'Configuration', value: answer.config_current ? 'is what runs' : 'is not what runs', level: answer.config_current ? 'good' : 'bad' },
    { title: 'Revision', value: exact(answer.revision) },
    { title: 'Control task', value: `answered ${duration(answer.heartbeat_seconds)} ago`, level: answer.heartbeat_seconds < OLD_HEARTBEAT ? 'good' : 'bad' },
    ...answer.interfaces.map((one) => ({
      title: `Interface ${one.name}`,
      value: one.attached ? `attached, ${one.mode}` : 'not attached',
      level: !one.attached ? 'bad' : one.mode === 'generic' ? 'warn' : 'good',
    })),
    ...networkFacts(answer),
    { title: 'Slots tracked', value: exact(answer.tracked_slots) },
    { title: 'Flows refused', value: exact(answer.flows_refused) },
    { title: 'NAT flows', value: `${exact(answer.nat_table.entries)} of ${scaled(answer.nat_table.capacity)}` },
    { title: 'Passed to the host', value: `${exact(answer.packets.pass)} packets` },
    { title: 'Version', value: answer.version },
  ];
  factList.show(facts, (fact) => fact.title, (part, fact) => {
    say(part.value, fact.value);
    mark(part.node, 'data-level', fact.level ?? null);
  });
  say(byId('host'), answer.host);
}
