// The picture: points drawn one by one into the canvas' pixels (no WebGL, no library, no network), box and axes.
// --- the camera: orthographic, turning about the vertical; right = z, up = y, towards the viewer = -x at yaw 0
const low = [0, 1, 2].map(a => data.low[a]), high = [0, 1, 2].map(a => data.high[a]);
const centre = low.map((l, a) => (l + high[a]) / 2 * cell[a]);
const diagonal = Math.hypot(...low.map((l, a) => (high[a] - l) * cell[a]));
const corner = bits => low.map((l, a) => bits >> a & 1 ? high[a] : l);
const START = {yaw: -0.6, pitch: 0.35, zoom: 1, panX: 0, panY: 0};
let camera = {...START};
const canvas = $("view"), context = canvas.getContext("2d");
let image, pixels, depth, ids, ratio = 1;

function axes({yaw, pitch} = camera) {
  const c = Math.cos(yaw), s = Math.sin(yaw), C = Math.cos(pitch), S = Math.sin(pitch);
  const towards = [-c, 0, s];                            // before tilting; every vector in (x, y, z)
  return {right: [s, 0, c], up: [-S * towards[0], C, -S * towards[2]], near: [C * towards[0], S, C * towards[2]]};
}
let fitted = 1;
function fit() {                                       // pixels per mm: the box fills the canvas at the first view
  const {right, up} = axes(START), spans = [right, up].map(e => {
    const ends = [...Array(8).keys()].map(bits => corner(bits).reduce((sum, v, a) => sum + e[a] * v * cell[a], 0));
    return Math.max(...ends) - Math.min(...ends);
  });
  const side = Math.min(90 * ratio, canvas.width * 0.2);
  fitted = Math.min((canvas.width - 2 * side) / spans[0], canvas.height * 0.84 / spans[1]);
}
function scale() { return fitted * camera.zoom; }
function resize() {
  ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio | 0);
  canvas.height = Math.max(1, canvas.clientHeight * ratio | 0);
  image = context.createImageData(canvas.width, canvas.height);
  pixels = new Uint32Array(image.data.buffer);
  depth = new Float32Array(pixels.length);
  ids = new Int32Array(pixels.length).fill(-1);
  fit();
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
  context.strokeStyle = "#6b7383"; context.lineWidth = ratio;
  drawEdges(corner);
  if ($("borders").checked) {
    context.strokeStyle = "#8d7fb8"; context.setLineDash([5 * ratio, 4 * ratio]);
    for (const border of data.borders) drawEdges(bits => border.low.map((l, a) => bits >> a & 1 ? border.high[a] : l));
    context.setLineDash([]);
    context.strokeStyle = "#6b7383";
  }
  context.fillStyle = "#cfd3da"; context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = "center"; context.textBaseline = "middle";
  const middle = project(low.map((l, a) => (l + high[a]) / 2));
  for (let a = 0; a < 3; a++) drawAxis(a, middle);
}
function drawEdges(at) {
  context.beginPath();
  for (let bits = 0; bits < 8; bits++) for (let a = 0; a < 3; a++) if (!(bits >> a & 1)) {
    context.moveTo(...project(at(bits))); context.lineTo(...project(at(bits | 1 << a)));
  }
  context.stroke();
}
function drawAxis(a, middle) {
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
    // numbers keep clear of the ends, where two axes meet
    if (Math.min(f, 1 - f) * length > 14 * ratio || a === 1) write(v.toFixed(0), x, y, away, 8, 13);
  }
  const wide = canvas.width > 700 * ratio;
  write(`${wide ? AXIS[a] : AXIS[a][0]} [${unit}]`, ...best.m, away, 48, 34);
}
function write(text, x, y, away, aside, below) {           // clear of the box, however wide the text is
  const half = context.measureText(text).width / 2, edge = half + 2 * ratio;
  const place = Math.max(edge, Math.min(canvas.width - edge, x + away[0] * (aside * ratio + half)));
  context.fillText(text, place, y + away[1] * below * ratio);
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
