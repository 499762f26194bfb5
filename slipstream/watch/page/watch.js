// Draws what the server sends. Ids, titles and errors are anybody's words: they become text nodes, never markup.

import { drawCurve, duration, sparkline } from "./chart.js";

const KEPT_MS = 300_000;
const SLOW_MS = 5_000;
const RETRY_MS = 2_000;
const $ = (id) => document.getElementById(id);
const count = (n) => (n === null || n === undefined ? "–" : n.toLocaleString("en"));
const rate = (n) => (n === null || n === undefined ? "–" : n < 10 ? n.toFixed(1) : Math.round(n).toLocaleString("en"));

const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** Whom the page follows, what it got last, and how far the server's clock is from ours. */
const state = { user: "", source: null, figures: null, view: null, changedMs: null, clockMs: 0, receivedMs: 0 };

/** An element; children are elements or texts. */
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

const serverNow = () => state.clockMs + performance.now() - state.receivedMs;

/** How long ago; a day and more as a date. */
function ago(ms) {
  const age = Math.max(0, serverNow() - ms);
  return age < 86_400_000 ? `${duration(age)} ago` : new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

function when(ms) {
  return h("time", { "data-ms": ms, datetime: new Date(ms).toISOString(), title: new Date(ms).toISOString() }, ago(ms));
}

// ---- the stream

function connect() {
  state.source?.close();
  const source = new EventSource(state.user ? `events?${new URLSearchParams({ user: state.user })}` : "events");
  state.source = source;
  source.addEventListener("open", () => setSource("stream", true, "live"));
  source.addEventListener("figures", (event) => showFigures(JSON.parse(event.data)));
  source.addEventListener("user", (event) => showUser(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    setSource("stream", false, "not connected");
    // A browser tries again by itself, but not after a refusal.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => state.source === source && connect(), RETRY_MS);
  });
}

function setSource(id, up, said) {
  $(id).className = `source ${up ? "up" : "down"}`;
  const text = $(id).querySelector("span");
  if (text.textContent !== said) text.textContent = said;
  showTrouble();
}

/** What is away, said once: a status is read aloud when it changes. */
function showTrouble() {
  const lines = [];
  if ($("stream").classList.contains("down")) lines.push("The connection to slipstream watch is lost: what is shown stands still. Trying again.");
  for (const [name, source] of [["Kafka", state.figures?.kafka], ["Redis", state.figures?.redis]]) {
    if (source && !source.ok) {
      const since = source.answered_ms ? ` since ${new Date(source.answered_ms).toISOString().slice(11, 19)}Z` : "";
      lines.push(`Nothing comes from ${name}${since}; it is asked again and again. ${source.said}`);
    }
  }
  const box = $("trouble");
  if (JSON.stringify(lines) === box.dataset.shown) return;
  box.dataset.shown = JSON.stringify(lines);
  box.replaceChildren(...lines.map((line) => h("p", { class: "alarm" }, line)));
}

// ---- figures

function showFigures(figures) {
  Object.assign(state, { figures, clockMs: figures.now_ms, receivedMs: performance.now() });
  $("prefix").textContent = figures.prefix;
  const { active, note } = figures.model;
  $("model").replaceChildren(...(active ? ["model ", h("code", {}, active)] : []), note ? `${active ? " · " : ""}${note}` : "");
  setSource("kafka", figures.kafka.ok, figures.kafka.ok ? "answers" : "away");
  setSource("redis", figures.redis.ok, figures.redis.ok ? "answers" : "away");
  showFreshness(figures.freshness);
  $("arriving").textContent = rate(figures.arriving_per_s);
  $("stages").replaceChildren(...figures.stages.map((stage) => stageRow(stage, figures.now_ms)));
  showLetters(figures.letters);
  for (const time of document.querySelectorAll("time[data-ms]")) time.textContent = ago(Number(time.dataset.ms));
}

function showFreshness(freshness) {
  $("p50").textContent = duration(freshness.p50_ms);
  $("p99").textContent = duration(freshness.p99_ms);
  $("measured").textContent = `of ${count(freshness.measured)} states written in the last ${freshness.window_s} s`;
  const slow = freshness.waiting_ms > SLOW_MS;
  $("waiting").className = slow ? "slow" : "quiet";
  $("waiting").textContent = slow ? `Not readable yet: an event that arrived ${duration(freshness.waiting_ms)} ago` : "";
  drawCurve($("curve"), freshness.curve, state.figures.now_ms, KEPT_MS);
}

function stageRow(stage, nowMs) {
  return h(
    "tr", {},
    h("th", { scope: "row" }, stage.name, h("small", {}, stage.unit)),
    h("td", { class: "n" }, count(stage.lag)),
    h("td", { class: "n" }, rate(stage.per_s)),
    h("td", { class: "spark" }, sparkline(stage.lags, nowMs, KEPT_MS)),
  );
}

function showLetters(letters) {
  const total = letters.total === null ? "–" : letters.total === 0 ? "None" : count(letters.total);
  $("letters-count").textContent = `${total} in the topic, ${count(letters.new)} since the watch began`;
  const key = JSON.stringify(letters.newest);
  if ($("letters").dataset.shown === key) return;
  $("letters").dataset.shown = key;
  $("letters").replaceChildren(
    ...letters.newest.map((letter) =>
      h(
        "tr", {},
        h("td", {}, h("code", {}, letter.reason)),
        h("td", { class: "title" }, letter.error),
        h("td", {}, h("span", { class: "id" }, letter.source)),
        h("td", {}, h("span", { class: "id" }, letter.place)),
        h("td", { class: "n" }, when(letter.buried_ms)),
      ),
    ),
  );
}

// ---- a user

const STATUS = {
  present: "has a state",
  stale: "has a state that is older than the setting stale_after_ms",
  not_found: "has no state: nothing was heard of them, or they were forgotten, or their state expired",
  invalid: "has a state that cannot be trusted; the encoder makes it anew with their next event",
  unavailable: "cannot be looked up now",
};

function showUser(view) {
  if (view.user !== state.user) return;
  const former = state.view;
  const followed = former?.user === view.user;
  state.view = view;
  $("answer").hidden = false;
  if (!followed || former.status !== view.status) {
    $("verdict").replaceChildren(
      h("span", { class: `status ${view.status}` }, view.status.replace("_", " ")), " User ",
      h("b", { class: "title" }, view.user), ` ${STATUS[view.status] ?? ""}`,
    );
  }
  const came = view.events.filter((event) => event.new).length;
  const moved = view.items.filter((item, place) => item.before !== place).length;
  const at = new Date(serverNow()).toISOString().slice(11, 19);
  const change = followed && view.slots ? `Changed at ${at}Z: ${plural(came, "new event")}, ${plural(moved, "item")} moved` : "";
  $("change").textContent = view.slots ? change : view.why;
  $("facts").replaceChildren(...(view.slots ? facts(view) : []));
  document.querySelector(".columns").hidden = !view.slots;
  $("items-note").textContent = view.note || "By the user embedding, what they have seen left out";
  $("items").replaceChildren(...view.items.map(itemRow));
  $("events-note").textContent = view.slots && view.slots.length > view.events.length ? `The newest ${view.events.length} of ${view.slots.length}` : "";
  $("events").replaceChildren(...view.events.map(eventRow));
}

function facts(view) {
  const { length, capacity, context, value_bytes } = view.slots;
  const most = context ?? capacity;
  const fact = (name, ...values) => h("div", {}, h("dt", {}, name), h("dd", {}, ...values));
  return [
    fact("Age: its newest event arrived", when(view.arrived_ms)),
    fact("Readable after", duration(Math.max(0, view.encoded_ms - view.arrived_ms))),
    fact(
      "Slots in use", `${length} of ${capacity}`, context ? h("span", { class: "quiet" }, `, model takes ${context}`) : "",
      h("meter", { min: 0, max: most, value: length, "aria-label": `${length} slots of at most ${most}` }),
    ),
    fact("Size in Redis", `${(value_bytes / 1024).toFixed(1)} KiB`),
    fact("Model", h("code", {}, view.model_id)),
  ];
}

/** A title with its id, or the id alone. */
function named({ title, item_id }) {
  const id = h("span", { class: "id" }, item_id);
  return title ? [h("span", { class: "title" }, title), id] : [id];
}

function itemRow(item, place) {
  const by = item.before === null ? null : item.before - place;
  const [kind, shown, said] =
    by === null ? ["came", "● new", "new"] : by > 0 ? ["up", `▲ ${by}`, `up ${by}`] : by < 0 ? ["down", `▼ ${-by}`, `down ${-by}`] : ["", "", ""];
  return h(
    "li", kind === "came" ? { class: "new" } : {},
    h("span", { class: `move ${kind}` }, h("span", { "aria-hidden": "true" }, shown), h("span", { class: "hidden" }, said)),
    h("span", {}, ...named(item)),
    h("span", { class: "n quiet", title: "user embedding · item vector" }, item.score.toFixed(3)),
  );
}

function eventRow(event) {
  return h(
    "tr", event.new ? { class: "new" } : {},
    h("td", {}, ...named(event)),
    h("td", {}, event.action),
    h("td", {}, event.surface),
    h("td", { class: "n" }, when(event.timestamp_ms)),
  );
}

function follow(user) {
  Object.assign(state, { user, view: null });
  $("answer").hidden = true;
  history.replaceState(null, "", user ? `?${new URLSearchParams({ user })}` : location.pathname);
  connect();
}

$("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  follow($("user").value);
});
window.addEventListener("resize", () => state.figures && showFreshness(state.figures.freshness));
$("user").value = new URLSearchParams(location.search).get("user") ?? "";
follow($("user").value);
