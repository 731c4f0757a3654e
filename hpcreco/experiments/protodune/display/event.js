"use strict";
// What the page knows of the event, which class each voxel is in at the present threshold, and its colour.
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
const predicted = decode("predicted", Float32Array);  // electrons, by a network or solved for
const trueCharge = decode("true_charge", Float32Array);
const flags = decode("flags", Uint8Array);            // 1 candidate, 2 true, 4 * k: of the other file number k
const n = flags.length, cell = data.cell, unit = data.unit;
const sameUnit = predicted && trueCharge && data.truth_unit === data.charge_unit;
const chargeError = sameUnit ? predicted.map((q, i) => flags[i] < 4 ? q - trueCharge[i] : 0) : null;

// --- classes of points at the current threshold; a voxel without score is called true by its predicted charge
const CLASSES = {
  tp: ["true, called true", "#56b4e9"], fp: ["ghost, called true", "#e69f00"],
  fn: ["true, called ghost", "#ffffff"], tn: ["ghost, called ghost", "#5a6070"],
  kept: ["called true", "#56b4e9"], rejected: ["called ghost", "#5a6070"],
  hit: ["true candidate", "#56b4e9"], ghost: ["ghost candidate", "#e69f00"],
  missed: ["true, no candidate", "#cc79a7"], candidate: ["candidate", "#56b4e9"], truth: ["true", "#56b4e9"],
};
const OTHERS = ["#009e73", "#f0e442", "#d55e00", "#0072b2"];
const judged = scores || predicted;
const hasTruth = data.has_truth, hasCandidates = flags.some(f => f & 1);
const others = data.others.map((title, k) => {
  CLASSES[`other${k}`] = [title, OTHERS[k % OTHERS.length]];
  return `other${k}`;
});
const names = [...(!hasCandidates ? ["truth"]
  : judged && hasTruth ? ["tp", "fp", "fn", "missed", "tn"]
  : judged ? ["kept", "rejected"] : hasTruth ? ["hit", "missed", "ghost"] : ["candidate"]), ...others];
const at = Object.fromEntries(names.map((name, k) => [name, k]));
const classOf = new Uint8Array(n), counts = new Int32Array(names.length);
// the slider: a score, or the logarithm of a charge in electrons
const CUT = scores ? {min: 0, max: 0.99, step: 0.01, start: data.threshold, value: s => s, show: s => s.toFixed(2)}
  : {min: 1, max: 6, step: 0.02, start: Math.log10(data.faint), value: s => 10 ** s,
     show: s => `${Number((10 ** s).toPrecision(2)).toLocaleString("en")} e`};
let setting = CUT.start;

function classify() {
  counts.fill(0);
  const values = scores || predicted, cut = CUT.value(setting);
  for (let i = 0; i < n; i++) {
    const isTrue = flags[i] & 2, called = judged && values[i] > cut;
    let name;
    if (flags[i] >> 2) name = others[(flags[i] >> 2) - 1];
    else if (!hasCandidates) name = "truth";
    else if (!(flags[i] & 1)) name = "missed";
    else if (judged && hasTruth) name = called ? (isTrue ? "tp" : "fp") : (isTrue ? "fn" : "tn");
    else if (judged) name = called ? "kept" : "rejected";
    else name = !hasTruth ? "candidate" : isTrue ? "hit" : "ghost";
    counts[classOf[i] = at[name]]++;
  }
}

// --- colours
const VIRIDIS = [[72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
  [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const DIVERGING = [[67, 162, 255], [64, 120, 190], [70, 80, 100], [170, 120, 60], [255, 170, 60]];
const rgb = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;    // as little-endian RGBA
const hex = h => rgb(parseInt(h.slice(1, 3), 16), parseInt(h.slice(3, 5), 16), parseInt(h.slice(5, 7), 16));
const table = stops => Uint32Array.from({length: 256}, (_, i) => {
  const f = i / 255 * (stops.length - 1), k = Math.min(f | 0, stops.length - 2);
  return rgb(...stops[k].map((c, j) => Math.round(c + (f - k) * (stops[k + 1][j] - c))));
});
const number = v => Number(v.toPrecision(2)).toLocaleString("en");
const log = {of: v => Math.log(Math.max(v, 1e-30)), show: v => number(Math.exp(v)), stops: VIRIDIS};
const plain = {of: v => v, show: v => v.toFixed(1), stops: VIRIDIS};
const signed = {of: v => Math.asinh(v / data.faint), show: v => number(Math.sinh(v) * data.faint), stops: DIVERGING};
const SCALES = {class: null, ...Object.fromEntries([
  ["score", scores, plain, ""], ["charge", charge, log, data.charge_unit],
  ["predicted charge", predicted, log, "e"], ["true charge", trueCharge, log, data.truth_unit],
  ["predicted - true", chargeError, signed, "e"],
].filter(scale => scale[1]).map(([name, values, kind, own]) => [name, {values, kind, unit: own}]))};
let colourBy = "class";
const colour = new Uint32Array(n);
function range(name) {                                 // 2 % to 99.5 % of the values
  const {values, kind} = SCALES[name];
  if (kind === plain) return [0, 1];
  // true and predicted charge are on one scale, so that colours can be compared
  const from = name === "predicted charge" && sameUnit ? trueCharge : values;
  const sorted = Float32Array.from(from, Math.abs).filter(v => v > 0).sort();
  if (!sorted.length) return [0, 1];
  const hi = kind.of(sorted[Math.min(sorted.length - 1, sorted.length * 0.995 | 0)]);
  const lo = kind === signed ? -hi : kind.of(sorted[sorted.length * 0.02 | 0]);
  return [lo, Math.max(hi, lo + 0.01)];
}
const RANGES = {};
function paint() {
  const scale = SCALES[colourBy];
  $("bar").hidden = !scale;
  $("low").textContent = $("high").textContent = "";
  const own = names.map(name => hex(CLASSES[name][1]));
  if (!scale) {
    for (let i = 0; i < n; i++) colour[i] = own[classOf[i]];
    return;
  }
  const {values, kind} = scale, [lo, hi] = RANGES[colourBy] ||= range(colourBy), lut = table(kind.stops);
  for (let i = 0; i < n; i++) {
    if (flags[i] >> 2 && colourBy !== "charge") colour[i] = own[classOf[i]];
    else colour[i] = lut[Math.max(0, Math.min(255, (kind.of(values[i]) - lo) / (hi - lo) * 255 | 0))];
  }
  $("bar").style.background = `linear-gradient(90deg, ${kind.stops.map(c => `rgb(${c})`).join()})`;
  $("low").textContent = kind.show(lo); $("high").textContent = `${kind.show(hi)} ${scale.unit}`;
}
