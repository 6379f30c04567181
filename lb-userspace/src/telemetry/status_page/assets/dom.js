// Everything that is shown is text: nothing here makes markup of a string.

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a string among the children is text. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Touches the page only where something has changed: whoever selects or listens is not disturbed. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

/** Brings the children of `parent` into this order, moving as few as can be. */
function arrange(parent, wanted) {
  let next = parent.firstElementChild;
  for (const node of wanted) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  while (next !== null) {
    const gone = next;
    next = next.nextElementSibling;
    gone.remove();
  }
}

/** As many children as there are items, kept by key; `build` makes one, `update` fills it in. */
class Listing {
  constructor(parent, build) {
    this.parent = parent;
    this.build = build;
    this.parts = new Map();
  }

  show(items, key, update) {
    const before = this.parts;
    this.parts = new Map();
    for (const item of items) {
      const name = key(item);
      const part = before.get(name) ?? this.build(item);
      this.parts.set(name, part);
      update(part, item);
    }
    arrange(this.parent, [...this.parts.values()].map((part) => part.node));
  }
}

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 120;
const HEIGHT = 24;

/** A chart of the last minutes. What it says is beside it in numbers, so it is hidden from those who can't see it. */
class Spark {
  constructor() {
    this.node = document.createElementNS(SVG, 'svg');
    for (const [name, value] of Object.entries({
      class: 'spark', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false',
    })) this.node.setAttribute(name, value);
    this.area = this.node.appendChild(document.createElementNS(SVG, 'path'));
    this.line = this.node.appendChild(document.createElementNS(SVG, 'path'));
    this.area.setAttribute('class', 'area');
    this.line.setAttribute('class', 'line');
  }

  draw(values) {
    const end = times[times.length - 1];
    const span = Math.max(end - times[0], LEAST_WINDOW);
    const most = values.reduce((most, value) => Math.max(most, value ?? 0), 0);
    const x = (index) => (WIDTH * (1 - (end - times[index]) / span)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (most > 0 ? (value / most) * (HEIGHT - 3) : 0)).toFixed(1);
    let line = '';
    let area = '';
    let from = null;
    const close = (to) => {
      if (from !== null) area += `L${x(to)} ${HEIGHT}L${x(from)} ${HEIGHT}Z`;
      from = null;
    };
    values.forEach((value, index) => {
      if (value === null) return close(index - 1);
      const step = `${from === null ? 'M' : 'L'}${x(index)} ${y(value)}`;
      line += step;
      area += step;
      from ??= index;
    });
    close(values.length - 1);
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
  }
}
