
'use strict';
// One page, no framework and no network. Positions on the picture are pixels
// of what is shown, from its upper left corner; x and y are pixels of the
// image, from 0, from its lower left one.
(async () => {
const $ = id => document.getElementById(id);
const data = JSON.parse($('data').textContent);
const [ny, nx] = data.shape;
const flagNames = Object.keys(data.flags);

const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const inflate = async text => new Int32Array(await new Response(
  new Blob([bytes(text)]).stream().pipeThrough(
    new DecompressionStream('deflate'))).arrayBuffer());
const canvasOf = (width, height, draw) => {
  const canvas = make('canvas', {width, height});
  draw(canvas.getContext('2d'));
  return canvas;
};
const toX = px => px * data.factor - 0.5;
const toY = py => (ny - py) * data.factor - 0.5;
const save = (name, rows) => {
  const cell = v => /[",\n\r]/.test(v = String(v ?? '')) ?
    `"${v.replaceAll('"', '""')}"` : v;
  const text = rows.map(row => row.map(cell).join(',') + '\n').join('');
  const href = URL.createObjectURL(new Blob([text], {type: 'text/csv'}));
  make('a', {href, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
};

// ------------------------------------------------------------- label maps

class LabelMap {
  constructor({name, columns}, labels) {
    Object.assign(this, {name, columns, labels, boxes: new Map(),
      paths: new Map(), filter: '', sort: null});
    for (let k = 0, box, last = 0; k < labels.length; k++) {
      const label = labels[k];
      if (label <= 0) continue;
      const x = k % nx, y = (k - x) / nx;
      if (label !== last) {
        box = this.boxes.get(label);
        if (!box) this.boxes.set(label, box = {x0: x, x1: x, y0: y, y1: y});
        last = label;
      }
      if (x < box.x0) box.x0 = x;
      if (x > box.x1) box.x1 = x;
      box.y1 = y;
    }
    this.byName = Object.fromEntries(columns.map(c => [c.name, c.values]));
    this.rows = new Map(this.byName.label.map((label, row) => [label, row]));
  }

  at(x, y) {
    return x < 0 || y < 0 || x >= nx || y >= ny ? 0 :
      this.labels[Math.floor(y) * nx + Math.floor(x)];
  }

  // the sides of pixels where a label ends
  outline(label) {
    let path = this.paths.get(label);
    if (path) return path;
    path = new Path2D();
    const box = this.boxes.get(label);
    const sides = (u0, u1, v0, v1, at, point) => {
      for (let v = v0; v <= v1 + 1; v++) {
        for (let u = u0, start = null; u <= u1 + 1; u++) {
          const edge = u <= u1 &&
            (at(u, v - 1) === label) !== (at(u, v) === label);
          if (edge) start ??= u;
          else if (start !== null) {
            path.moveTo(...point(start, v));
            path.lineTo(...point(u, v));
            start = null;
          }
        }
      }
    };
    sides(box.x0, box.x1, box.y0, box.y1, (u, v) => this.at(u, v),
      (u, v) => [u, v]);
    sides(box.y0, box.y1, box.x0, box.x1, (u, v) => this.at(v, u),
      (u, v) => [v, u]);
    this.paths.set(label, path);
    return path;
  }

  // all outlines, a pixel wide: for when too many are seen to stroke each
  get edges() {
    return this._edges ??= paint(this.labels, (label, k) => {
      if (label <= 0) return 0;
      const x = k % nx;
      return x && this.labels[k - 1] !== label ||
        x < nx - 1 && this.labels[k + 1] !== label ||
        k >= nx && this.labels[k - nx] !== label ||
        k < nx * (ny - 1) && this.labels[k + nx] !== label ? 0xffffffff : 0;
    });
  }

  // a pixel of a label, the one nearest to the middle of its box
  anchor(label) {
    const b = this.boxes.get(label);
    const cx = (b.x0 + b.x1) / 2, cy = (b.y0 + b.y1) / 2;
    let best, least = Infinity;
    for (let y = b.y0; y <= b.y1; y++) {
      for (let x = b.x0; x <= b.x1; x++) {
        const d = (x - cx) ** 2 + (y - cy) ** 2;
        if (d < least && this.at(x, y) === label) [best, least] = [[x, y], d];
      }
    }
    return [best[0] + 0.5, best[1] + 0.5];
  }

  neighbours(label) {
    const b = this.boxes.get(label), found = new Set();
    for (let y = b.y0; y <= b.y1; y++) {
      for (let x = b.x0; x <= b.x1; x++) {
        if (this.at(x, y) !== label) continue;
        for (const [dx, dy] of [[1, 0], [0, 1], [1, 1], [1, -1]]) {
          found.add(this.at(x + dx, y + dy)).add(this.at(x - dx, y - dy));
        }
      }
    }
    return [...found].filter(other => other > 0 && other !== label);
  }
}

// a canvas of colours that are packed as alpha, blue, green, red
function paint(labels, colour) {
  return canvasOf(nx, ny, pen => {
    const pixels = pen.createImageData(nx, ny);
    new Uint32Array(pixels.data.buffer).set(labels.map(colour));
    pen.putImageData(pixels, 0, 0);
  });
}

function packed(colour) {
  const known = new Map();
  return label => {
    if (label <= 0) return 0;
    if (!known.has(label)) {
      const [r, g, b] = colour(label) ?? [0, 0, 0];
      known.set(label, 255 << 24 | b << 16 | g << 8 | r);
    }
    return known.get(label);
  };
}

// neighbouring numbers have hues far apart
function hue(label) {
  const h = label * 0.618034 % 1 * 6;
  return [5, 3, 1].map(n => 255 - 200 * Math.max(0, Math.min(
    (n + h) % 6, 4 - (n + h) % 6, 1)));
}
const ramp = p => [255 - 190 * p, 90 + 120 * p, 60 + 160 * p];

const picture = await createImageBitmap(
  new Blob([bytes(data.picture)], {type: 'image/png'}));
const grey = canvasOf(nx, ny, context => {
  context.drawImage(picture, 0, 0);
  context.globalCompositeOperation = 'saturation';
  context.fillStyle = '#888';
  context.fillRect(0, 0, nx, ny);
});
const maps = [];
for (const one of data.maps) {
  maps.push(new LabelMap(one, await inflate(one.labels)));
}
const views = [{name: 'image', map: maps[0]}, ...maps.map(map => (
  {name: map.name, map, labels: map.labels, colour: hue}))];
if (data.class_map) {
  const colours = [null, ...Object.values(data.classes)];
  views.push({name: 'classes', map: maps[0], legend: data.classes,
    labels: await inflate(data.class_map), colour: v => colours[v]});
}
const confidence = maps[0].byName.group_confidence;
if (confidence) {
  const {rows} = maps[0];
  views.push({name: 'confidence', map: maps[0], labels: maps[0].labels,
    ramp: true, colour: label => ramp(confidence[rows.get(label)] ?? 0)});
}

// ------------------------------------------------------------------ state

const canvas = $('canvas'), context = canvas.getContext('2d');
const state = {view: views[0], last: views[1], outlines: true, scale: 1,
  brighter: 0, left: 0, top: 0, place: null, label: 0, chosen: [], edits: []};

// ---------------------------------------------------------------- picture

let asked = false;
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    drawNow();
  });
}

function drawNow() {
  const {view, scale, left, top} = state, ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) ||
      canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * left,
    ratio * top);
  context.imageSmoothingEnabled = scale * ratio < 1;
  drawPicture(context, view.labels ? grey : picture);
  if (view.labels) {
    view.layer ??= paint(view.labels, packed(view.colour));
    context.globalAlpha = 0.5;
    context.drawImage(view.layer, 0, 0);
    context.globalAlpha = 1;
  }
  if (state.outlines) drawOutlines(view.map, width, height);
  drawScale();
  if (state.label) {
    context.strokeStyle = '#ffcf5a';
    context.lineWidth = 2.4 / scale;
    context.stroke(view.map.outline(state.label));
  }
  context.fillStyle = '#ff5ad0';
  for (const {px, py} of state.chosen) {
    context.beginPath();
    context.arc(px, py, 4 / scale, 0, 7);
    context.fill();
  }
}

function drawPicture(pen, source) {
  for (let k = 0; k < 2 ** state.brighter; k++) {
    pen.drawImage(source, 0, 0);
    pen.globalCompositeOperation = 'lighter';
  }
  pen.globalCompositeOperation = 'source-over';
}

function drawOutlines(map, width, height) {
  const {scale, left, top} = state, seen = [];
  for (const [label, b] of map.boxes) {
    if (b.x0 * scale + left < width && (b.x1 + 1) * scale + left > 0 &&
        b.y0 * scale + top < height && (b.y1 + 1) * scale + top > 0) {
      seen.push(label);
    }
  }
  context.globalAlpha = 0.75;
  if (seen.length > 400) context.drawImage(map.edges, 0, 0);
  else {
    context.strokeStyle = '#fff';
    context.lineWidth = 1 / scale;
    for (const label of seen) context.stroke(map.outline(label));
  }
  context.globalAlpha = 1;
}

// a bar of a round length, in arcsec or else in pixels
function drawScale() {
  const unit = (data.arcsec ?? 1) * data.factor / state.scale;
  const most = 120 * unit, ten = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].find(n => n * ten <= most) * ten;
  $('scale').textContent = Number(length.toPrecision(1)) +
    (data.arcsec ? '″' : ' px');
  $('scale').style.width = `${length / unit}px`;
}

function zoom(factor, x = canvas.clientWidth / 2,
    y = canvas.clientHeight / 2) {
  const scale = Math.min(Math.max(state.scale * factor, 0.02), 64);
  factor = scale / state.scale;
  state.left = x - (x - state.left) * factor;
  state.top = y - (y - state.top) * factor;
  state.scale = scale;
  draw();
}

function move(dx, dy) {
  state.left += dx;
  state.top += dy;
  draw();
}

function show(x, y, scale) {
  state.scale = scale;
  state.left = canvas.clientWidth / 2 - x * scale;
  state.top = canvas.clientHeight / 2 - y * scale;
  draw();
}

const fit = () => show(nx / 2, ny / 2, Math.min(
  canvas.clientWidth / nx, canvas.clientHeight / ny));

function zoomTo(label) {
  const b = state.view.map.boxes.get(label);
  const side = Math.max(b.x1 - b.x0, b.y1 - b.y0) + 1;
  const room = Math.min(canvas.clientWidth, canvas.clientHeight);
  const scale = Math.min(Math.max(state.scale, room / side / 6),
    room / side / 1.3, 6);
  // no more of the dark beside the image than must be
  const inside = (middle, n, size) => n * scale < size ? n / 2 :
    Math.min(Math.max(middle, size / scale / 2), n - size / scale / 2);
  show(inside((b.x0 + b.x1 + 1) / 2, nx, canvas.clientWidth),
    inside((b.y0 + b.y1 + 1) / 2, ny, canvas.clientHeight), scale);
}

// ------------------------------------------------------ views, selection

function setView(view) {
  if (view !== state.view) state.last = state.view;
  state.view = view;
  const [x, y] = state.place ?? [-1, -1];
  views.forEach((one, k) => $('views').children[k].setAttribute(
    'aria-pressed', one === view));
  $('legend').replaceChildren(...legend(view));
  select(view.map.at(x, y), state.place, true);
  if (table.map !== view.map) showTable(view.map);
}

function legend(view) {
  const swatch = background => {
    const box = make('i');
    box.style.background = background;
    return box;
  };
  if (view.ramp) {
    const box = swatch(`linear-gradient(90deg, ${[0, 0.5, 1].map(
      p => `rgb(${ramp(p)})`)})`);
    box.className = 'ramp';
    return ['0', box, '1'];
  }
  return Object.entries(view.legend ?? {}).map(([name, rgb]) => make(
    'span', {}, swatch(`rgb(${rgb})`), name));
}

function select(label, place, quiet) {
  const {map} = state.view;
  state.label = map.boxes.has(label) ? label : 0;
  state.place = place ?? (state.label ? map.anchor(label) : null);
  showCard();
  draw();
  if (table.map === map) markRow(!quiet);
}

let timer = null;
function blink() {
  clearInterval(timer);
  timer = timer ? null : setInterval(() => setView(state.last), 700);
  $('blink').setAttribute('aria-pressed', timer !== null);
}

function toggleOutlines() {
  state.outlines = !state.outlines;
  $('outlines').setAttribute('aria-pressed', state.outlines);
  draw();
}

function brighten() {
  state.brighter = (state.brighter + 1) % 5;
  $('brighter').textContent = state.brighter ? `light × ${
    2 ** state.brighter}` : 'brighter';
  $('brighter').setAttribute('aria-pressed', state.brighter > 0);
  showCard();
  draw();
}

// ------------------------------------------------------------------- card

function format(column, value) {
  if (value === null) return '';
  if (column.name === 'flags') {
    return flagNames.filter(name => value & data.flags[name]).join(' ');
  }
  if (typeof value !== 'number' || Number.isInteger(value)) {
    return String(value);
  }
  if (column.unit === 'deg') return value.toFixed(6);
  const size = Math.abs(value);
  return size >= 1e7 || size < 1e-3 ? value.toExponential(2) :
    size >= 100 ? value.toFixed(2) : value.toPrecision(4);
}

const button = (text, act, title = '') => make('button', {
  className: 'small', textContent: text, title, onclick: act});

function showCard() {
  const {view: {map}, label, place} = state, card = $('card');
  if (!label) {
    card.replaceChildren(make('p', {className: 'hint', textContent:
      place ? 'Sky.' : 'Click an object.'}));
  } else {
    const row = map.rows.get(label), kind = map.byName.class?.[row] ?? '';
    card.replaceChildren(cutout(map, label),
      make('h2', {textContent: `${label} ${kind}`}));
    if (row !== undefined) card.append(...facts(map, row));
    const others = map.neighbours(label);
    if (others.length) {
      card.append(make('p', {}, 'Touches ', ...others.slice(0, 12).map(
        other => button(other, () => select(other)))));
    }
    card.append(make('p', {}, button('zoom', () => zoomTo(label)),
      ...(data.edits && map === maps[0] ? [button('choose to edit',
        () => choose(...state.place))] : [])));
  }
  if (place && maps.length > 1) {
    card.append(make('p', {}, 'Here: ', ...maps.map(other => button(
      `${other.name} ${Math.max(other.at(...place), 0) || '–'}`,
      () => setView(views.find(view => view.labels === other.labels))))));
  }
}

function cutout(map, label) {
  const b = map.boxes.get(label), size = 280;
  const side = Math.max(b.x1 - b.x0 + 1, b.y1 - b.y0 + 1) * 1.5 + 6;
  return canvasOf(size, size, pen => {
    pen.setTransform(size / side, 0, 0, size / side,
      size / 2 - (b.x0 + b.x1 + 1) / 2 * size / side,
      size / 2 - (b.y0 + b.y1 + 1) / 2 * size / side);
    pen.imageSmoothingEnabled = side > size;
    drawPicture(pen, picture);
    pen.strokeStyle = '#ffcf5a';
    pen.lineWidth = 2 * side / size;
    pen.stroke(map.outline(label));
  });
}

// flags, fluxes by band, and all other columns
function facts(map, row) {
  const get = name => {
    const column = map.columns.find(one => one.name === name);
    return column ? format(column, column.values[row]) : '';
  };
  const kinds = ['flux', 'total_flux'].filter(kind =>
    data.bands.some(band => `${kind}_${band}` in map.byName));
  const used = new Set(['label', 'class', 'flags', ...kinds.flatMap(
    kind => data.bands.flatMap(band => [`${kind}_${band}`,
      `${kind}_err_${band}`]))]);
  const out = [make('p', {}, ...get('flags').split(' ').filter(Boolean).map(
    name => make('span', {className: 'chip', textContent: name})))];
  if (kinds.length) {
    const unit = map.columns.find(
      one => one.name === `${kinds[0]}_${data.bands[0]}`)?.unit;
    const line = (tag, words) => make('tr', {}, ...words.map(
      textContent => make(tag, {textContent})));
    out.push(make('table', {}, line('th', [unit ?? '', ...kinds.map(
      kind => kind.replace('_', ' '))]), ...data.bands.map(band => line(
      'td', [band, ...kinds.map(kind => {
        const error = get(`${kind}_err_${band}`);
        return get(`${kind}_${band}`) + (error && ` ± ${error}`);
      })]))));
  }
  const rest = make('dl');
  for (const column of map.columns) {
    if (used.has(column.name) || column.values[row] === null) continue;
    rest.append(make('dt', {textContent: column.name}), make('dd', {
      textContent: format(column, column.values[row]) +
        (column.unit ? ` ${column.unit}` : '')}));
  }
  return [...out, rest];
}

// ------------------------------------------------------------------ table

const ROW = 24;
const table = {map: null, order: []};

const isText = ({name, values}) => name === 'flags' ||
  typeof values.find(value => value !== null) === 'string';

function test(map, word) {
  const parts = /^([^<>=!]+)(<=|>=|!=|<|>|=)(.*)$/.exec(word);
  if (!parts) {
    const texts = map.columns.filter(isText);
    return row => String(map.byName.label[row]) === word || texts.some(
      one => format(one, one.values[row]).includes(word));
  }
  const [, name, sign, text] = parts;
  const column = map.columns.find(one => one.name === name);
  if (!column) throw new Error(`no column ${name}`);
  const number = Number(text);
  const equal = v => name === 'flags' && text in data.flags ?
    (v & data.flags[text]) !== 0 : text !== '' && Number.isFinite(number) &&
    typeof v === 'number' ? v === number : String(v ?? '') === text;
  const is = {'=': equal, '!=': v => !equal(v),
    '<': v => v !== null && v < number, '>': v => v !== null && v > number,
    '<=': v => v !== null && v <= number,
    '>=': v => v !== null && v >= number}[sign];
  return row => is(column.values[row]);
}

function arrange() {
  const {map} = table, field = $('filter');
  let tests = [];
  try {
    tests = map.filter.split(/\s+/).filter(Boolean).map(
      word => test(map, word));
    field.classList.remove('bad');
    field.title = '';
  } catch (error) {
    field.classList.add('bad');
    field.title = error.message;
  }
  const n = map.byName.label.length;
  table.order = Array.from({length: n}, (_, row) => row).filter(
    row => tests.every(one => one(row)));
  if (map.sort) {
    const {name, up} = map.sort, values = map.byName[name];
    table.order.sort((a, b) => {
      const [p, q] = [values[a], values[b]];
      if (p === null || q === null) return (p === null) - (q === null);
      return (p < q ? -1 : p > q ? 1 : 0) * (up ? 1 : -1);
    });
  }
  $('count').textContent = field.title ||
    `${table.order.length} of ${n} ${map.name}`;
  drawRows();
}

function showTable(map) {
  table.map = map;
  $('filter').value = map.filter;
  $('filter').placeholder = 'Filter: area>100' + (map.byName.flags ?
    ' class=galaxy flags!=edge' : '');
  $('rows').querySelector('thead').replaceChildren(make('tr', {},
    ...map.columns.map(column => {
      const mark = map.sort?.name !== column.name ? '' :
        map.sort.up ? ' ▲' : ' ▼';
      const longest = Math.max(column.name.length + 2, ...column.values.slice(
        0, 200).map(value => format(column, value).length));
      const head = make('th', {textContent: column.name + mark,
        title: column.name + (column.unit ? ` (${column.unit})` : ''),
        scope: 'col', className: isText(column) ? 'text' : '', onclick: () => {
          map.sort = {name: column.name, up: map.sort?.name !== column.name ||
            !map.sort.up};
          $('rows').scrollTop = 0;
          showTable(map);
        }});
      head.style.width = `${Math.min(longest, 26) * 0.6 + 1.2}em`;
      return head;
    })));
  arrange();
  markRow(true);
}

// only the rows that are seen exist; two empty ones hold the place of others
function drawRows() {
  const {map, order} = table, box = $('rows');
  const first = Math.max(Math.floor(box.scrollTop / ROW) - 5, 0);
  const last = Math.min(first + Math.ceil(box.clientHeight / ROW) + 10,
    order.length);
  const space = n => {
    const cell = make('td', {colSpan: map.columns.length});
    const line = make('tr', {hidden: n <= 0}, cell);
    cell.style.height = `${Math.max(n, 0) * ROW}px`;
    return line;
  };
  const lines = order.slice(first, last).map(row => {
    const label = map.byName.label[row];
    return make('tr', {className: label === state.label ? 'selected' : '',
      onclick: () => pick(label)}, ...map.columns.map(column => {
      const value = column.values[row];
      return make('td', {textContent: format(column, value),
        className: isText(column) ? 'text' : ''});
    }));
  });
  box.querySelector('tbody').replaceChildren(space(first), ...lines,
    space(order.length - last));
}

function pick(label) {
  select(label, null, true);
  if (state.label) zoomTo(label);
  $('sky').scrollIntoView({block: 'nearest'});
}

function markRow(scroll) {
  const k = table.order.indexOf(table.map.rows.get(state.label));
  const box = $('rows'), inner = box.clientHeight - 2 * ROW;
  if (scroll && k >= 0 && (k * ROW < box.scrollTop ||
      k * ROW > box.scrollTop + inner)) {
    box.scrollTop = k * ROW - inner / 2;
  }
  drawRows();
}

function step(by) {
  const {map, order} = table;
  if (!order.length) return;
  const k = order.indexOf(map.rows.get(state.label));
  pick(map.byName.label[order[k < 0 ? 0 :
    (k + by + order.length) % order.length]]);
  markRow(true);
}

// ------------------------------------------------------------------ edits

function choose(px, py) {
  const label = maps[0].at(px, py);
  if (!data.edits || label <= 0) return;
  state.chosen.push({label, px, py});
  $('edits').open = true;
  showEdits();
}

function addEdit() {
  const action = $('action').value;
  const labels = [...new Set(state.chosen.map(one => one.label))];
  const enough = {merge: labels.length > 1, split: labels.length === 1 &&
    state.chosen.length > 1}[action] ?? labels.length > 0;
  if (!enough) {
    $('chosen').append(make('span', {className: 'chip', textContent: {
      merge: 'choose two objects or more', split: 'choose two points or ' +
      'more of one object'}[action] ?? 'choose an object'}));
    return;
  }
  const points = axis => action === 'split' ? state.chosen.map(
    axis).map(v => v.toFixed(1)).join(' ') : '';
  state.edits.push([action, labels.join(' '), points(one => toX(one.px)),
    points(one => toY(one.py)), action === 'reclassify' ? $('class').value :
    '']);
  state.chosen = [];
  showEdits();
}

function showEdits() {
  const off = (list, k) => () => {
    list.splice(k, 1);
    showEdits();
  };
  $('edits').firstElementChild.textContent = `Edits (${state.edits.length})`;
  $('chosen').replaceChildren(...state.chosen.map(({label}, k) => button(
    `${label} ×`, off(state.chosen, k), 'Take off the list')));
  $('edit-list').replaceChildren(...state.edits.map((words, k) => make(
    'li', {}, button('×', off(state.edits, k), 'Take off the list'),
    `${words[0]} ${words[1]} ${words[4]}`)));
  $('save-edits').disabled = !state.edits.length;
  draw();
}

// ------------------------------------------------- mouse, touch, keyboard

const fingers = new Map();
let moved = 0;
const position = event => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const onPicture = event => {
  const [x, y] = position(event);
  return [(x - state.left) / state.scale, (y - state.top) / state.scale];
};
canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, position(event));
  if (fingers.size === 1) moved = 0;
};
canvas.onpointermove = event => {
  const [px, py] = onPicture(event), {map} = state.view;
  const inside = px >= 0 && py >= 0 && px < nx && py < ny;
  $('readout').textContent = inside ? `x ${toX(px).toFixed(1)}  y ${
    toY(py).toFixed(1)}  ${map.at(px, py) > 0 ? map.at(px, py) : ''}` : '';
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = position(event);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  moved += Math.abs(dx) + Math.abs(dy);
  fingers.set(event.pointerId, now);
  if (other) {
    const far = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
    zoom(far(now) / far(before), ...other);
  } else if (moved > 4) move(dx, dy);
};
canvas.onpointerup = event => {
  const alone = fingers.size === 1;
  fingers.delete(event.pointerId);
  if (!alone || moved > 4) return;
  const place = onPicture(event);
  if (event.shiftKey && state.view.map === maps[0]) choose(...place);
  else select(state.view.map.at(...place), place);
};
canvas.onpointercancel = event => fingers.delete(event.pointerId);
canvas.onpointerleave = () => $('readout').textContent = '';
canvas.ondblclick = () => state.label && zoomTo(state.label);
canvas.addEventListener('wheel', event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.04 : 0.0015)),
    ...position(event));
}, {passive: false});

const keys = [
  [`1 to ${Math.min(views.length, 9)}`, 'what is shown', null],
  ['space', 'back to what was shown before', () => setView(state.last), ' '],
  ['b', 'blink the two', blink],
  ['o', 'outlines', toggleOutlines],
  ['l', 'brighter, in steps', brighten],
  ['+', 'zoom in', () => zoom(1.4)],
  ['-', 'zoom out', () => zoom(1 / 1.4)],
  ['0', 'fit the image', fit],
  ['z', 'zoom to the object', () => state.label && zoomTo(state.label)],
  ['j', 'next object of the table', () => step(1)],
  ['k', 'the one before', () => step(-1)],
  ['Escape', 'no object', () => select(0)],
  ['?', 'this help', () => $('help').showModal()],
  ['arrows, drag', 'move', null], ['wheel, pinch', 'zoom', null],
  ['double click', 'zoom to the object', null],
  ...(data.edits ? [['shift-click', 'choose an object to edit', null]] : [])];
const arrows = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60],
  ArrowDown: [0, -60]};
onkeydown = event => {
  const {key, target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $('help').open ||
      ['INPUT', 'SELECT'].includes(target.tagName)) return;
  // a button takes the space, and the table its arrows, for itself
  if (key === ' ' && /BUTTON|SUMMARY/.test(target.tagName)) return;
  const act = keys.find(([name, , , own]) => (own ?? name) === key)?.[2];
  if (act) act();
  else if (/^[1-9]$/.test(key) && views[key - 1]) setView(views[key - 1]);
  else if (key in arrows && target !== $('rows')) move(...arrows[key]);
  else return;
  event.preventDefault();
};

// ------------------------------------------------------------------ start

$('views').append(...views.map((view, k) => make('button', {
  onclick: () => setView(view)}, ...(k < 9 ? [make('kbd', {
  textContent: k + 1})] : []), view.name)));
$('blink').onclick = blink;
$('outlines').onclick = toggleOutlines;
$('outlines').setAttribute('aria-pressed', true);
$('brighter').onclick = brighten;
$('fit').onclick = fit;
$('about').onclick = () => $('help').showModal();
$('keys').append(...keys.flatMap(([name, what]) => [
  make('dt', {textContent: name}), make('dd', {textContent: what})]));
$('lines').textContent = [...data.lines, ...(data.factor > 1 ? [
  `shown binned by ${data.factor} x ${data.factor} pixels; positions, ` +
  'areas and fluxes are those of the whole image'] : [])].join('\n');
$('filter').oninput = event => {
  table.map.filter = event.target.value;
  $('rows').scrollTop = 0;
  arrange();
};
$('rows').onscroll = drawRows;
$('save').onclick = () => save(`${table.map.name}.csv`, [
  table.map.columns.map(one => one.name), ...table.order.map(
    row => table.map.columns.map(one => one.values[row]))]);
$('edits').hidden = !data.edits;
$('class').append(...Object.keys(data.classes).map(
  textContent => make('option', {textContent})));
$('action').onchange = () => {
  $('class').hidden = $('action').value !== 'reclassify';
};
$('add').onclick = addEdit;
$('save-edits').onclick = () => save('edits.csv', [
  ['action', 'labels', 'x', 'y', 'class'], ...state.edits]);
new ResizeObserver(() => {
  draw();
  drawRows();
}).observe($('sky'));
setView(views[0]);
state.last = views[1];
showEdits();
fit();
document.body.dataset.ready = 'yes';
})();
