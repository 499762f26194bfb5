// The curve of freshness and the small curves of lag, as SVG. Every text is a text node: nothing is parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

/** 34 ms, 1.2 s, 12 s, 3 min, 2 h, 5 d. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${Number((ms / 1000).toFixed(1))} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000).toLocaleString("en")} d`;
}

/** A path through points, interrupted where more than `gap` of x lies between two. A lone point is a dot. */
function path(points, gap) {
  return points
    .map(([x, y], i) => {
      const joined = i > 0 && x - points[i - 1][0] <= gap;
      return joined ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}h0.1`;
    })
    .join("");
}

const MARGIN = { left: 46, right: 34, top: 8, bottom: 20 };

const LABEL_PX = 12;

/** Freshness over the last minutes, both percentiles on one logarithmic axis. `curve`: [Unix ms, p50, p99]. */
export function drawCurve(box, curve, nowMs, keptMs) {
  const width = Math.max(240, box.clientWidth);
  const height = box.clientHeight || 190;
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const values = curve.flatMap(([, p50, p99]) => [Math.max(1, p50), Math.max(1, p99)]);
  const low = Math.floor(Math.log10(values.length ? Math.min(...values) : 10));
  const high = Math.max(low + 1, Math.ceil(Math.log10(values.length ? Math.max(...values) : 1000)));
  const x = (ms) => MARGIN.left + inner.width * (1 - (nowMs - ms) / keptMs);
  const y = (ms) => MARGIN.top + inner.height * (1 - (Math.log10(Math.max(1, ms)) - low) / (high - low));
  const last = curve.at(-1);
  const said = last ? `latest p50 ${duration(last[1])}, p99 ${duration(last[2])}` : "no state was written yet";
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `Freshness of the last 5 minutes, logarithmic: ${said}` });
  for (let decade = low; decade <= high; decade++) {
    const at = y(10 ** decade);
    picture.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    picture.append(svg("text", { x: MARGIN.left - 7, y: at + 4, "text-anchor": "end" }, duration(10 ** decade)));
  }
  for (let minutes = 0; minutes <= 5; minutes++) {
    const label = minutes ? `−${minutes} min` : "now";
    picture.append(svg("text", { x: x(nowMs - minutes * 60_000), y: height - 4, "text-anchor": "middle" }, label));
  }
  const shown = curve.filter(([ms]) => ms > nowMs - keptMs);
  // Names of lines that end close to each other must not lie on each other.
  const apart = last ? Math.max(0, LABEL_PX - (y(last[1]) - y(last[2]))) / 2 : 0;
  for (const [i, name] of [[1, "p50"], [2, "p99"]]) {
    const points = shown.map((point) => [Math.min(x(point[0]), width - MARGIN.right), y(point[i])]);
    picture.append(svg("path", { class: name, d: path(points, (3 * 5000 * inner.width) / keptMs) }));
    if (points.length) picture.append(svg("text", { class: name, x: points.at(-1)[0] + 6, y: points.at(-1)[1] + 4 + (i === 1 ? apart : -apart) }, name));
  }
  box.replaceChildren(picture);
}

/** A stage's lag over the last minutes; its table has the number. `lags`: [Unix ms, lag]. */
export function sparkline(lags, nowMs, keptMs) {
  const width = 120, height = 26;
  const most = Math.max(1, ...lags.map(([, lag]) => lag));
  const points = lags
    .filter(([ms]) => ms > nowMs - keptMs)
    .map(([ms, lag]) => [width * Math.min(1, 1 - (nowMs - ms) / keptMs), height - 2 - (height - 4) * (lag / most)]);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, preserveAspectRatio: "none", role: "img", "aria-label": `at most ${most.toLocaleString("en")}` });
  picture.append(svg("path", { class: "lag", d: path(points, width), "vector-effect": "non-scaling-stroke" }));
  return picture;
}
