"use strict";
// One event as a rotating point cloud, drawn point by point into the canvas' pixels: no WebGL, no library, no network.
const $ = id => document.getElementById(id);
const data = JSON.parse($("event").textContent);

function decode(name, Type) {
  if (!data[name]) return null;
  const text = atob(data[name]), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}
const coords = decode("coords", Int16Array);          // x, y, z of each point, in cells
const scores = decode("scores", Float32Array);        // 0 where the point is no candidate
const charge = decode("charge", Float32Array);        // mean over the planes
const trueCharge = decode("true_charge", Float32Array);
const flags = decode("flags", Uint8Array);            // 1 candidate, 2 true
const n = flags.length, cell = data.cell, unit = data.unit;

// --- classes of points at the current threshold
const CLASSES = {
  tp: ["true, called true", "#56b4e9"], fp: ["ghost, called true", "#e69f00"],
  fn: ["true, called ghost", "#ffffff"], tn: ["ghost, called ghost", "#5a6070"],
  kept: ["called true", "#56b4e9"], rejected: ["called ghost", "#5a6070"],
  hit: ["true candidate", "#56b4e9"], ghost: ["ghost candidate", "#e69f00"],
  missed: ["true, no candidate", "#cc79a7"], candidate: ["candidate", "#56b4e9"], truth: ["true", "#56b4e9"],
};
const hasTruth = data.has_truth, hasCandidates = flags.some(f => f & 1);
const names = !hasCandidates ? ["truth"]
  : scores && hasTruth ? ["tp", "fp", "fn", "missed", "tn"]
  : scores ? ["kept", "rejected"] : hasTruth ? ["hit", "missed", "ghost"] : ["candidate"];
const at = Object.fromEntries(names.map((name, k) => [name, k]));
const classOf = new Uint8Array(n), counts = new Int32Array(names.length);
let threshold = data.threshold;

function classify() {
  counts.fill(0);
  for (let i = 0; i < n; i++) {
    const isTrue = flags[i] & 2, called = scores && scores[i] > threshold;
    let name;
    if (!hasCandidates) name = "truth";
    else if (!(flags[i] & 1)) name = "missed";
    else if (scores && hasTruth) name = called ? (isTrue ? "tp" : "fp") : (isTrue ? "fn" : "tn");
    else if (scores) name = called ? "kept" : "rejected";
    else name = !hasTruth ? "candidate" : isTrue ? "hit" : "ghost";
    counts[classOf[i] = at[name]]++;
  }
}

// --- colours
const VIRIDIS = [[72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
  [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const rgb = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;    // as little-endian RGBA
const hex = h => rgb(parseInt(h.slice(1, 3), 16), parseInt(h.slice(3, 5), 16), parseInt(h.slice(5, 7), 16));
const LUT = Uint32Array.from({length: 256}, (_, i) => {
  const f = i / 255 * (VIRIDIS.length - 1), k = Math.min(f | 0, VIRIDIS.length - 2);
  return rgb(...VIRIDIS[k].map((c, j) => Math.round(c + (f - k) * (VIRIDIS[k + 1][j] - c))));
});
const SCALES = {class: null, score: scores, charge: charge, "true charge": trueCharge};
let colourBy = "class";
const colour = new Uint32Array(n);
function range(values, log) {                          // 2 % to 99.5 % of the positive values
  const sorted = Float32Array.from(values).filter(v => v > 0).sort();
  if (!sorted.length) return [0, 1];
  const lo = sorted[sorted.length * 0.02 | 0], hi = sorted[Math.min(sorted.length - 1, sorted.length * 0.995 | 0)];
  return log ? [Math.log(lo), Math.log(Math.max(hi, lo * 1.01))] : [lo, hi];
}
const RANGES = {};
function paint() {
  const values = SCALES[colourBy];
  $("bar").style.visibility = values ? "visible" : "hidden";
  $("low").textContent = $("high").textContent = "";
  if (!values) {
    const own = names.map(name => hex(CLASSES[name][1]));
    for (let i = 0; i < n; i++) colour[i] = own[classOf[i]];
    return;
  }
  const isScore = colourBy === "score";
  const [lo, hi] = isScore ? [0, 1] : RANGES[colourBy] ||= range(values, true);
  for (let i = 0; i < n; i++) {
    const v = isScore ? values[i] : Math.log(Math.max(values[i], 1e-30));
    colour[i] = LUT[Math.max(0, Math.min(255, (v - lo) / (hi - lo) * 255 | 0))];
  }
  const show = v => isScore ? v.toFixed(1) : Number(Math.exp(v).toPrecision(2)).toLocaleString("en");
  const what = isScore ? "" : " " + (colourBy === "charge" ? data.charge_unit : data.truth_unit);
  $("low").textContent = show(lo); $("high").textContent = show(hi) + what;
}
$("bar").style.background = `linear-gradient(90deg, ${VIRIDIS.map(c => `rgb(${c})`).join()})`;

// --- the camera: orthographic, turning about the vertical; right = z, up = y, towards the viewer = -x at yaw 0
const low = [0, 1, 2].map(a => data.low[a]), high = [0, 1, 2].map(a => data.high[a]);
const centre = low.map((l, a) => (l + high[a]) / 2 * cell[a]);
const diagonal = Math.hypot(...low.map((l, a) => (high[a] - l) * cell[a]));
const START = {yaw: -0.6, pitch: 0.35, zoom: 1, panX: 0, panY: 0};
let camera = {...START};
const canvas = $("view"), context = canvas.getContext("2d");
let image, pixels, depth, ids, ratio = 1;

function axes() {
  const {yaw, pitch} = camera, c = Math.cos(yaw), s = Math.sin(yaw), C = Math.cos(pitch), S = Math.sin(pitch);
  const towards = [-c, 0, s];                            // before tilting; every vector in (x, y, z)
  return {right: [s, 0, c], up: [-S * towards[0], C, -S * towards[2]], near: [C * towards[0], S, C * towards[2]]};
}
function scale() { return Math.min(canvas.width, canvas.height) * 0.95 / diagonal * camera.zoom; }
function resize() {
  ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio | 0);
  canvas.height = Math.max(1, canvas.clientHeight * ratio | 0);
  image = context.createImageData(canvas.width, canvas.height);
  pixels = new Uint32Array(image.data.buffer);
  depth = new Float32Array(pixels.length);
  ids = new Int32Array(pixels.length).fill(-1);
  request();
}

const BACKGROUND = hex("#14161a");
function drawPoints() {
  pixels.fill(BACKGROUND); depth.fill(-Infinity); ids.fill(-1);
  const {right, up, near} = axes(), k = scale(), w = canvas.width, h = canvas.height;
  const X = w / 2 + camera.panX * ratio, Y = h / 2 + camera.panY * ratio;
  const side = Math.max(Math.round(1.6 * ratio * $("size").value), Math.round(k * Math.min(...cell) * $("size").value));
  const shown = names.map((_, c) => layerBoxes[c].checked), half = side >> 1, reach = diagonal / 2;
  for (let i = 0; i < n; i++) {
    if (!shown[classOf[i]]) continue;
    const x = (coords[3 * i] + 0.5) * cell[0] - centre[0];
    const y = (coords[3 * i + 1] + 0.5) * cell[1] - centre[1];
    const z = (coords[3 * i + 2] + 0.5) * cell[2] - centre[2];
    const px = X + k * (right[0] * x + right[1] * y + right[2] * z) - half | 0;
    const py = Y - k * (up[0] * x + up[1] * y + up[2] * z) - half | 0;
    if (px < 0 || py < 0 || px + side > w || py + side > h) continue;
    const d = near[0] * x + near[1] * y + near[2] * z;
    const dim = Math.round(256 * (0.72 + 0.28 * Math.min(1, Math.max(0, d / reach + 0.5)))), c = colour[i];
    const shade = (255 << 24 | ((c >>> 16 & 255) * dim >> 8) << 16 | ((c >>> 8 & 255) * dim >> 8) << 8
      | (c & 255) * dim >> 8) >>> 0;
    for (let q = py; q < py + side; q++) for (let p = px, o = q * w + px; p < px + side; p++, o++)
      if (d > depth[o]) { depth[o] = d; pixels[o] = shade; ids[o] = i; }
  }
  context.putImageData(image, 0, 0);
}

function project(point) {
  const {right, up} = axes(), k = scale(), v = point.map((p, a) => p * cell[a] - centre[a]);
  const dot = e => e[0] * v[0] + e[1] * v[1] + e[2] * v[2];
  return [canvas.width / 2 + camera.panX * ratio + k * dot(right), canvas.height / 2 + camera.panY * ratio - k * dot(up)];
}
const AXIS = data.axes;
function drawBox() {
  const corner = bits => low.map((l, a) => bits >> a & 1 ? high[a] : l);
  context.strokeStyle = "#6b7383"; context.lineWidth = ratio;
  context.beginPath();
  for (let bits = 0; bits < 8; bits++) for (let a = 0; a < 3; a++) if (!(bits >> a & 1)) {
    context.moveTo(...project(corner(bits))); context.lineTo(...project(corner(bits | 1 << a)));
  }
  context.stroke();
  context.fillStyle = "#cfd3da"; context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = "center"; context.textBaseline = "middle";
  const middle = project(low.map((l, a) => (l + high[a]) / 2));
  for (let a = 0; a < 3; a++) drawAxis(a, corner, middle);
}
function drawAxis(a, corner, middle) {
  // of the four parallel edges, label the outermost one which is lowest on the screen
  let best = null;
  for (let bits = 0; bits < 8; bits++) if (!(bits >> a & 1)) {
    const p = project(corner(bits)), q = project(corner(bits | 1 << a));
    const m = [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2], out = [m[0] - middle[0], m[1] - middle[1]];
    const merit = Math.hypot(...out) + 0.5 * out[1] - (a === 1 ? out[0] * 0.5 : 0);
    if (!best || merit > best.merit) best = {merit, bits, p, q, m, out};
  }
  const length = Math.hypot(best.q[0] - best.p[0], best.q[1] - best.p[1]);
  if (length < 40 * ratio) return;                        // the axis points at the viewer
  const norm = Math.hypot(...best.out) || 1, away = best.out.map(v => v / norm);
  const toUnit = unit === "mm" ? cell[a] : 1, from = low[a] * toUnit + data.origin[a], to = high[a] * toUnit + data.origin[a];
  const step = niceStep((to - from) / Math.max(1, length / (90 * ratio)));
  for (let v = Math.ceil(from / step) * step; v <= to + 1e-9; v += step) {
    const f = (v - from) / (to - from), x = best.p[0] + f * (best.q[0] - best.p[0]), y = best.p[1] + f * (best.q[1] - best.p[1]);
    context.beginPath(); context.moveTo(x, y); context.lineTo(x + away[0] * 5 * ratio, y + away[1] * 5 * ratio); context.stroke();
    write(v.toFixed(0), x, y, away, 8, 13);
  }
  write(`${AXIS[a]} [${unit}]`, ...best.m, away, 48, 34);
}
function write(text, x, y, away, aside, below) {           // clear of the box, however wide the text is
  const half = context.measureText(text).width / 2;
  context.fillText(text, x + away[0] * (aside * ratio + half), y + away[1] * below * ratio);
}
function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1e-9)));
  return [1, 2, 5, 10].map(f => f * power).find(s => s >= raw) || 10 * power;
}

let requested = false;
function request() {
  if (requested) return;
  requested = true;
  requestAnimationFrame(() => { requested = false; drawPoints(); drawBox(); });
}

// --- controls
const layerBoxes = [], layerCounts = [];
names.forEach((name, k) => {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox"; box.id = `layer-${name}`;
  box.checked = !["tn", "rejected"].includes(name);
  box.onchange = request;
  const dot = document.createElement("span"); dot.className = "dot"; dot.style.background = CLASSES[name][1];
  const count = document.createElement("span"); count.className = "n";
  label.append(box, dot, CLASSES[name][0], count);
  $("layers").append(label); layerBoxes.push(box); layerCounts.push(count);
});
function refresh() {
  classify(); paint();
  names.forEach((_, k) => layerCounts[k].textContent = counts[k].toLocaleString("en"));
  $("value").textContent = threshold.toFixed(2);
  const count = name => name in at ? counts[at[name]] : 0;
  if (scores && hasTruth) {
    const tp = count("tp"), called = tp + count("fp"), all = tp + count("fn");
    $("status").textContent = `purity ${(called ? tp / called : 1).toFixed(3)} · efficiency ${(all ? tp / all : 1).toFixed(3)}`
      + ` of true candidates · ${called.toLocaleString("en")} called true`;
  } else $("status").textContent = names.map((name, k) => `${counts[k].toLocaleString("en")} ${CLASSES[name][0]}`).join(" · ");
  request();
}
const PRESETS = {
  Truth: [["truth", "tp", "fn", "hit", "missed"], "true charge"],
  Candidates: [["tp", "fp", "fn", "tn", "kept", "rejected", "hit", "ghost", "candidate"], "charge"],
  Prediction: [["tp", "fp", "kept"], "score"],
  Difference: [["tp", "fp", "fn", "missed", "hit", "ghost"], "class"],
};
function choose(preset) {
  const [layers, by] = PRESETS[preset];
  layerBoxes.forEach((box, k) => box.checked = layers.includes(names[k]));
  $("colour").value = colourBy = SCALES[by] ? by : "class";
  refresh();
}
for (const name of Object.keys(SCALES)) if (name === "class" || SCALES[name]) $("colour").add(new Option(name, name));
$("colour").onchange = () => { colourBy = $("colour").value; paint(); request(); };
const possible = {Truth: hasTruth, Candidates: hasCandidates, Prediction: !!scores, Difference: hasTruth && hasCandidates};
for (const name of Object.keys(PRESETS)) if (possible[name]) {
  const button = document.createElement("button"); button.textContent = name; button.onclick = () => choose(name);
  $("presets").append(button);
}
$("cut").hidden = !scores;
$("threshold").value = threshold;
$("threshold").oninput = () => { threshold = +$("threshold").value; refresh(); };
$("size").oninput = request;
const VIEWS = {"3-D": [START.yaw, START.pitch], "z-y": [0, 0], "z-x": [0, Math.PI / 2], "x-y": [Math.PI / 2, 0]};
for (const [name, [yaw, pitch]] of Object.entries(VIEWS)) {
  const button = document.createElement("button"); button.textContent = name;
  button.onclick = () => { Object.assign(camera, START, {yaw, pitch}); request(); };
  $("views").append(button);
}

// --- mouse and touch
let grip = null;
canvas.onpointerdown = e => { grip = {x: e.clientX, y: e.clientY, move: e.shiftKey || e.button === 2}; canvas.setPointerCapture(e.pointerId); };
canvas.onpointerup = () => { grip = null; };
canvas.oncontextmenu = e => e.preventDefault();
canvas.onpointermove = e => {
  if (!grip) return hover(e);
  const dx = e.clientX - grip.x, dy = e.clientY - grip.y;
  grip.x = e.clientX; grip.y = e.clientY;
  if (grip.move) { camera.panX += dx; camera.panY += dy; }
  else {
    camera.yaw -= dx * 0.006;
    camera.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, camera.pitch + dy * 0.006));
  }
  request();
};
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  const factor = Math.exp(-e.deltaY * 0.0012), box = canvas.getBoundingClientRect();
  const x = e.clientX - box.left - box.width / 2, y = e.clientY - box.top - box.height / 2;
  camera.panX = x - (x - camera.panX) * factor; camera.panY = y - (y - camera.panY) * factor;
  camera.zoom *= factor;
  request();
}, {passive: false});
canvas.ondblclick = () => { camera = {...START}; request(); };
canvas.onpointerleave = () => { $("tip").style.display = "none"; };
function hover(e) {
  const box = canvas.getBoundingClientRect();
  const x = (e.clientX - box.left) * ratio | 0, y = (e.clientY - box.top) * ratio | 0, i = ids[y * canvas.width + x];
  const tip = $("tip");
  if (!(i >= 0)) { tip.style.display = "none"; return; }
  const where = [0, 1, 2].map(a => `${"xyz"[a]} ${coords[3 * i + a]}`).join("  ");
  const lines = [CLASSES[names[classOf[i]]][0], `cell ${where}`];
  if (scores && flags[i] & 1) lines.push(`score ${scores[i].toFixed(3)}`);
  if (charge && flags[i] & 1) lines.push(`charge ${charge[i].toFixed(0)} ${data.charge_unit}`);
  if (trueCharge) lines.push(`true charge ${Number(trueCharge[i].toPrecision(4))} ${data.truth_unit}`);
  tip.textContent = lines.join("\n");
  tip.style.display = "block";
  tip.style.left = `${Math.min(e.clientX - box.left + 14, box.width - 170)}px`;
  tip.style.top = `${e.clientY - box.top + 14}px`;
}

new ResizeObserver(resize).observe(canvas);
resize();
choose(scores ? (hasTruth ? "Difference" : "Prediction") : hasTruth ? "Truth" : "Candidates");
