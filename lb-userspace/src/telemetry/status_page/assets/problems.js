// What somebody who is called at night wants to read first.

const RANK = { failing: 3, panic: 3, degraded: 2, healthy: 0 };
const MOST_SHOWN = 8;
/** What is not said of it with “is”. */
const PEER_STATES = { 'does not hear us': 'does not hear us', 'never heard': 'was never heard' };
/** As healthz: older, the control task hangs. */
const OLD_HEARTBEAT = 5;

function isWanted(backend) {
  return backend.admin === undefined;
}

/** Whether somebody should look at it. One of another role is as it should be. */
function isAmiss(backend) {
  return isWanted(backend) && (backend.health === 'unhealthy' || backend.unreachable === true);
}

function rank(service) {
  const own = RANK[service.state] ?? 1;
  return own > 0 ? own : service.backends.some(isAmiss) || (service.sources ?? []).some((source) => source.failing) ? 1 : 0;
}

/** All there is to say, the worst first: level, text, and the service it is about. */
function problemsOf(answer) {
  const found = [];
  const bad = (text, service, source) => found.push({ level: 'bad', text, service, source });
  const warn = (text, service, source) => found.push({ level: 'warn', text, service, source });
  if (!answer.ready) bad(`Not ready: ${answer.not_ready ?? 'no reason given'}`);
  if (answer.heartbeat_seconds >= OLD_HEARTBEAT) {
    bad(`The control task has not answered for ${duration(answer.heartbeat_seconds)}: backends are not checked, traffic goes by the last table`);
  }
  if (!answer.config_current) bad('The configuration is wrong or was refused, and something else runs: “ballast status” says why');
  if (!answer.state_complete) warn('What was set over the command line was not all there at the start: “ballast status” says more');
  if (answer.checks_held) warn('Failed health checks don’t count: no interface has a link, or has had one for a moment only');
  for (const one of answer.interfaces) {
    if (!one.attached) bad(`Not attached to ${one.name}`);
    else if (one.mode === 'generic') warn(`${one.name} is in generic mode, which is slow`);
  }
  if (answer.services.length === 0) warn('There are no services');
  problemsOfNetwork(answer, bad, warn);
  for (const service of [...answer.services].sort((a, b) => rank(b) - rank(a))) problemsOfService(service, bad, warn);
  for (const [name, table] of [['flow table', answer.flow_table], ['NAT table', answer.nat_table]]) {
    if (table.fills) warn(`The ${name} is ${percent(table.entries / table.capacity)} full`);
  }
  for (const drop of answer.drops) {
    const rate = tracks.get(ofDrop(drop.reason))?.rates.packets ?? 0;
    if (rate >= 1 && drop.alarming) {
      warn(`${scaled(rate)} packets/s dropped (${drop.reason}): ${drop.meaning}; ${drop.advice}`);
    }
  }
  return [...found.filter((one) => one.level === 'bad'), ...found.filter((one) => one.level === 'warn')];
}

/** What the network is told of VIPs, and what others are told of this load balancer. */
function problemsOfNetwork({ announce, held, fleet, peers }, bad, warn) {
  for (const one of held ?? []) {
    if (one.rival) bad(`Split brain: another host says that it has ${one.vip}, too`);
  }
  if (announce?.trouble) bad('The routes that announce VIPs can’t be read or changed: “ballast announce status” says why');
  for (const one of announce?.vips ?? []) {
    if (one.kept) warn(`${one.vip} lacks backends, and is not withdrawn: “ballast announce status” says why`);
    if (one.reason === undefined || one.is_alright) continue;
    const words = `${one.vip} is ${one.announced ? 'announced by another route' : 'not announced'} (${one.reason})`;
    if (one.announced) warn(words);
    else bad(words);
  }
  for (const peer of peers?.peers ?? []) {
    if (peer.hash_key_equal === false) bad(`Peer ${peer.address} has another hash key: it maps clients differently, and flows are not replicated with it`);
    else if (!peer.up) warn(`Peer ${peer.address} ${PEER_STATES[peer.state] ?? `is ${peer.state}`}: flows are not replicated with it`);
  }
  if (fleet === undefined) return;
  if (fleet.unheard) bad('The fleet does not hear of this host: “ballast fleet status” says why');
  if (!fleet.connected) warn(`Cut off from the fleet’s etcd for ${duration(fleet.silent_seconds)}: traffic goes on, and nothing can be changed`);
  if (fleet.refuses) bad('What the fleet’s etcd has is refused here: “ballast fleet status” says why');
  if (fleet.marked > 0) warn(`The fleet: ${fleet.marked} of ${counted(fleet.members, 'member')} lag behind or differ: “ballast fleet status” says who`);
}

function problemsOfService(service, bad, warn) {
  const amiss = service.backends.filter(isAmiss);
  const named = amiss.slice(0, 3).map((backend) => {
    const why = backend.health === 'unhealthy' ? backend.detail : 'its next hop has no MAC address';
    return why === undefined ? backend.name : `${backend.name} (${why})`;
  });
  const more = amiss.length > named.length ? ` and ${amiss.length - named.length} more` : '';
  const who = amiss.length > 0 ? `: ${named.join(', ')}${more}` : '';
  if (service.state === 'failing') bad(`${service.name} fails, no backend gets traffic${who}`, service.name);
  else if (service.state === 'panic') bad(`${service.name} panics, backends that are not healthy get traffic too${who}`, service.name);
  else if (amiss.length > 0) warn(`${service.name}: ${amiss.length} of ${counted(service.backends.length, 'backend')} in trouble${who}`, service.name);
  else if (service.state === 'degraded') warn(`${service.name} is degraded`, service.name);
  for (const source of service.sources ?? []) {
    if (source.failing) warn(`${service.name}: ${source.kind} ${source.place} does not answer as it should; the last answer is ${duration(source.age_seconds)} old`, service.name, source.place);
  }
}
