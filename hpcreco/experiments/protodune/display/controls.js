// What the visitor does: layers, threshold, colours; mouse, touch and keys.
const layerBoxes = [], layerCounts = [];
names.forEach((name, k) => {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox"; box.id = `layer-${name}`;
  box.checked = !["tn", "rejected"].includes(name);
  box.onchange = request;
  const dot = document.createElement("span"); dot.className = "dot"; dot.style.background = CLASSES[name][1];
  const count = document.createElement("span"); count.className = "n";
  const text = document.createElement("span"); text.textContent = CLASSES[name][0];
  label.append(box, dot, text, count);
  $("layers").append(label); layerBoxes.push(box); layerCounts.push(count);
});
function refresh() {
  classify(); paint();
  names.forEach((_, k) => layerCounts[k].textContent = counts[k].toLocaleString("en"));
  $("value").textContent = (scores ? "score > " : "charge > ") + CUT.show(setting);
  $("status").textContent = judged && hasTruth ? quality() : names.map((name, k) =>
    `${counts[k].toLocaleString("en")} ${CLASSES[name][0]}`).join(" \u00b7 ");
  request();
}
function quality() {
  const [tp, fp, fn] = ["tp", "fp", "fn"].map(name => counts[at[name]]), called = tp + fp, all = tp + fn;
  const words = [`purity ${(called ? tp / called : 1).toFixed(3)}`,
    `efficiency ${(all ? tp / all : 1).toFixed(3)} of true candidates`, `${called.toLocaleString("en")} called true`];
  if (sameUnit) {
    let seen = 0, held = 0;
    for (let i = 0; i < n; i++) if (flags[i] < 4) { if (flags[i] & 2) held += trueCharge[i]; if (predicted[i] > CUT.value(setting)) seen += predicted[i]; }
    words.push(`charge ${(seen / held).toFixed(3)} of the true ${held.toPrecision(3)} e`);
  }
  return words.join(" \u00b7 ");
}
const PRESETS = {
  Truth: [["truth", "tp", "fn", "hit", "missed"], "true charge"],
  Candidates: [["tp", "fp", "fn", "tn", "kept", "rejected", "hit", "ghost", "candidate"], "charge"],
  Prediction: [["tp", "fp", "kept"], scores ? "score" : "predicted charge"],
  Difference: [["tp", "fp", "fn", "missed", "hit", "ghost"], "class"],
  "Charge error": [["tp", "fp", "fn", "missed"], "predicted - true"],
  Compare: [["tp", "fp", "kept", "candidate", "truth", ...others], "class"],
};
function choose(preset) {
  const [layers, by] = PRESETS[preset];
  layerBoxes.forEach((box, k) => { box.checked = layers.includes(names[k]); });
  $("colour").value = colourBy = SCALES[by] ? by : "class";
  refresh();
}
for (const name of Object.keys(SCALES)) $("colour").add(new Option(name, name));
$("colour").onchange = () => { colourBy = $("colour").value; refresh(); };
const possible = {Truth: hasTruth, Candidates: hasCandidates, Prediction: !!judged, Difference: hasTruth && hasCandidates,
  "Charge error": !!chargeError, Compare: others.length > 0};
for (const name of Object.keys(PRESETS)) if (possible[name]) {
  const button = document.createElement("button"); button.textContent = name; button.onclick = () => choose(name);
  $("presets").append(button);
}
$("cut").hidden = !judged;
Object.assign($("threshold"), {min: CUT.min, max: CUT.max, step: CUT.step});
$("threshold").value = CUT.start;
$("threshold").oninput = () => { setting = +$("threshold").value; refresh(); };
$("size").oninput = request;
$("bordered").hidden = !data.borders.length;
$("borders").onchange = request;
const VIEWS = {"3-D": [START.yaw, START.pitch], "z-y": [0, 0], "z-x": [0, Math.PI / 2], "x-y": [Math.PI / 2, 0]};
for (const [name, [yaw, pitch]] of Object.entries(VIEWS)) {
  const button = document.createElement("button"); button.textContent = name;
  button.onclick = () => { Object.assign(camera, START, {yaw, pitch}); request(); };
  $("views").append(button);
}

function turn(dx, dy) {
  camera.yaw -= dx * 0.006;
  camera.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, camera.pitch + dy * 0.006));
}
function shift(dx, dy) { camera.panX += dx; camera.panY += dy; }
function zoom(factor, x, y) {                          // x, y from the middle: the point that stays where it is
  camera.panX = x - (x - camera.panX) * factor; camera.panY = y - (y - camera.panY) * factor;
  camera.zoom *= factor;
}
function fromMiddle(x, y) {
  const box = canvas.getBoundingClientRect();
  return [x - box.left - box.width / 2, y - box.top - box.height / 2];
}

// --- mouse and fingers: one turns, two move and zoom
const grips = new Map();
canvas.onpointerdown = e => {
  grips.set(e.pointerId, {x: e.clientX, y: e.clientY, move: e.shiftKey || e.button === 2});
  canvas.setPointerCapture(e.pointerId); canvas.focus({preventScroll: true});
  if (e.pointerType === "touch") hover(e);
};
canvas.onpointerup = canvas.onpointercancel = e => { grips.delete(e.pointerId); };
canvas.oncontextmenu = e => e.preventDefault();
canvas.onpointermove = e => {
  const grip = grips.get(e.pointerId);
  if (!grip) return hover(e);
  const dx = e.clientX - grip.x, dy = e.clientY - grip.y;
  if (grips.size === 1) (grip.move ? shift : turn)(dx, dy);
  else {
    const [other] = [...grips].filter(([id]) => id !== e.pointerId).map(([, g]) => g);
    const before = Math.hypot(grip.x - other.x, grip.y - other.y);
    const after = Math.hypot(e.clientX - other.x, e.clientY - other.y);
    shift(dx / 2, dy / 2);
    if (before > 10) zoom(after / before, ...fromMiddle((e.clientX + other.x) / 2, (e.clientY + other.y) / 2));
  }
  grip.x = e.clientX; grip.y = e.clientY;
  request();
};
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  zoom(Math.exp(-e.deltaY * 0.0012), ...fromMiddle(e.clientX, e.clientY));
  request();
}, {passive: false});
function reset() { camera = {...START}; request(); }
canvas.ondblclick = reset;
canvas.onpointerleave = () => { $("tip").style.display = "none"; };
const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
canvas.onkeydown = e => {
  if (e.key in KEYS) (e.shiftKey ? shift : turn)(...KEYS[e.key].map(v => v * 15));
  else if (e.key === "+" || e.key === "=") zoom(1.15, 0, 0);
  else if (e.key === "-") zoom(1 / 1.15, 0, 0);
  else if (e.key === "0" || e.key === "Home") reset();
  else return;
  e.preventDefault();
  request();
};
function hover(e) {
  const box = canvas.getBoundingClientRect();
  const x = (e.clientX - box.left) * ratio | 0, y = (e.clientY - box.top) * ratio | 0;
  const tip = $("tip"), i = nearest(x, y);
  if (i < 0) { tip.style.display = "none"; return; }
  tip.textContent = describe(i).join("\n");
  tip.style.display = "block";
  tip.style.left = `${Math.max(0, Math.min(e.clientX - box.left + 14, box.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(0, Math.min(e.clientY - box.top + 14, box.height - tip.offsetHeight - 4))}px`;
}
function nearest(x, y) {                               // a point under the pointer, or within three pixels of it
  for (let r = 0; r <= 3 * ratio; r++) for (let dy = -r; dy <= r; dy++) for (let dx = -r; dx <= r; dx++) {
    if (Math.max(Math.abs(dx), Math.abs(dy)) !== r || x + dx < 0 || x + dx >= canvas.width) continue;
    const i = ids[(y + dy) * canvas.width + x + dx];
    if (i >= 0) return i;
  }
  return -1;
}
function describe(i) {
  const own = [0, 1, 2].map(a => coords[3 * i + a]);
  const mm = own.map((v, a) => ((v + 0.5) * cell[a] + data.origin[a]).toFixed(0));
  const lines = [CLASSES[names[classOf[i]]][0], "xyz".split("").map((name, a) => `${name} ${own[a]}`).join("  ") + "  cells"];
  if (unit === "mm") lines.push("xyz".split("").map((name, a) => `${name} ${mm[a]}`).join("  ") + "  mm");
  if (scores && flags[i] & 1) lines.push(`score ${scores[i].toFixed(3)}`);
  const amount = v => Number(v.toPrecision(4)).toLocaleString("en");
  if (charge && flags[i] & 5) lines.push(`charge ${amount(charge[i])} ${data.charge_unit}`);
  if (predicted && flags[i] & 1) lines.push(`predicted charge ${amount(predicted[i])} e`);
  if (trueCharge && flags[i] < 4) lines.push(`true charge ${amount(trueCharge[i])} ${data.truth_unit}`);
  return lines;
}

new ResizeObserver(resize).observe(canvas);
resize();
choose(others.length ? "Compare" : chargeError ? "Charge error" : judged ? (hasTruth ? "Difference" : "Prediction")
  : hasTruth ? "Truth" : "Candidates");
