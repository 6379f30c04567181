// Rates are made here, from what two answers have counted.

const WINDOW = 180;

/** So much is drawn at least: of the first answers, too. */
const LEAST_WINDOW = 30;

/** When the answers of the last minutes were made, by the daemon's clock, in seconds. */
const times = [];

/** Counters of one thing: what they grow by in a second, and how that was lately. */
class Track {
  constructor(main) {
    this.main = main;
    this.last = null;
    this.rates = {};
    /** Of the main counter, one for each of `times`; null: not known. */
    this.values = new Array(times.length).fill(null);
    this.seen = 0;
  }

  read(counts, elapsed, round) {
    this.seen = round;
    for (const key in counts) {
      const known = this.last !== null && counts[key] !== null && this.last[key] !== null;
      const grown = known ? counts[key] - this.last[key] : -1;
      // A counter that went back was cleared.
      this.rates[key] = elapsed > 0 && grown >= 0 ? grown / elapsed : null;
    }
    this.last = counts;
    const value = this.rates[this.main] ?? null;
    this.values.push(value);
    if (this.values.length > times.length) this.values.splice(0, this.values.length - times.length);
  }
}

const tracks = new Map();
let round = 0;

function track(key, main = 'packets') {
  let found = tracks.get(key);
  if (found === undefined) {
    // The present answer's time is there already.
    found = new Track(main);
    found.values.pop();
    tracks.set(key, found);
  }
  return found;
}

const ofService = (service) => `s ${service.name}`;
const ofBackend = (service, backend) => `b ${service.name} ${backend.name}`;
const ofDrop = (reason) => `d ${reason}`;

function traffic(of) {
  return {
    packets: of.packets,
    bytes: of.bytes,
    flows: of.new_flows ?? null,
    replies: of.reply_packets ?? null,
    reply_bytes: of.reply_bytes ?? null,
  };
}

/** Takes an answer in. */
function remember(answer) {
  let elapsed = times.length > 0 ? answer.at - times[times.length - 1] : 0;
  if (elapsed < 0) {
    // The machine was started again.
    times.length = 0;
    tracks.clear();
    elapsed = 0;
  }
  round += 1;
  times.push(answer.at);
  while (times[0] < answer.at - WINDOW) times.shift();

  const sums = { bytes: 0, flows: 0 };
  for (const service of answer.services) {
    track(ofService(service)).read(traffic(service), elapsed, round);
    sums.bytes += service.bytes + (service.reply_bytes ?? 0);
    sums.flows += service.new_flows ?? 0;
    for (const backend of service.backends) {
      track(ofBackend(service, backend)).read(traffic(backend), elapsed, round);
    }
  }
  for (const drop of answer.drops) track(ofDrop(drop.reason)).read({ packets: drop.count }, elapsed, round);
  track('packets').read({ packets: answer.packets.received }, elapsed, round);
  track('drops').read({ packets: answer.packets.drop }, elapsed, round);
  track('bytes', 'bytes').read({ bytes: sums.bytes }, elapsed, round);
  track('flows', 'flows').read({ flows: sums.flows }, elapsed, round);
  for (const [key, one] of tracks) if (one.seen !== round) tracks.delete(key);
}
