// Shows each state of the shop that the sale sends. Texts come in as texts: nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
// A shade, a stem and a foot.
const LAMP = "M8 2h10l4 12H4zM13 14v8M8 22.5h10";
const GROUPS = { coordinator: "", stock: "Stock", payments: "Payments", orders: "Orders" };
const BRANCHES = { stock: "stock", payments: "payments", orders: "row", "orders-cache": "copy" };
const WORDS = {
  waiting: "on their way",
  asking: "waiting for an answer",
  again: "asking again, the answer was lost",
  sold: "bought",
  sold_out: "sold out",
  overdraft: "too little money",
  fraud: "vetoed: more than two",
};
const PHASES = {
  opening: "opening",
  selling: "open",
  settling: "closing: what is in doubt is being finished",
};

const $ = (id) => document.getElementById(id);

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Makes `parent` have so many children, and returns them. */
function children(parent, count, make) {
  while (parent.children.length > count) parent.lastChild.remove();
  while (parent.children.length < count) parent.append(make());
  return [...parent.children];
}

function lamp() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 26 25");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", LAMP);
  svg.append(path);
  return svg;
}

function showShelf({ items, books }) {
  const sold = books?.value?.rows ?? 0;
  $("items").textContent = items;
  $("sold").textContent = `${sold} of ${items}`;
  $("shelf").style.setProperty("--columns", Math.ceil(items / 5));
  children($("shelf"), items, lamp).forEach((each, at) => {
    each.setAttribute("class", at < sold ? "lamp sold" : "lamp");
  });
}

function showBooks({ items, price, left, money, books }) {
  const counted = [
    ["Stock", items - (left?.value ?? items), left, `${left?.value ?? "?"} left on the shelf`],
    ["Payments", (money?.value ?? 0) / price, money, `${money?.value ?? "?"} paid, ${price} each`],
    ["Orders", books?.value?.rows ?? 0, books, "rows in PostgreSQL"],
    ["Cache", books?.value?.copies ?? 0, books, "copies in Redis"],
  ];
  const make = () => {
    const box = element("div");
    box.append(element("dt"), element("dd", "figure"), element("dd", "note"));
    return box;
  };
  children($("books"), counted.length, make).forEach((box, at) => {
    const [name, figure, known, note] = counted[at];
    const [dt, dd, about] = box.children;
    [dt.textContent, dd.textContent] = [name, figure];
    about.textContent = known?.is_fresh ? note : "does not answer; as last seen";
    box.className = known?.is_fresh ? "" : "stale";
  });
  const isEven = counted.every(([, figure, known]) => known?.is_fresh && figure === counted[0][1]);
  $("books").className = isEven ? "even" : "";
  $("balance").textContent = isEven ? "all equal" : "purchases are under way";
  $("balance").className = isEven ? "good" : "";
}

function showParts({ parts }) {
  const names = Object.keys(GROUPS);
  const boxes = children($("groups"), names.length, () => {
    const box = element("div", "group");
    box.append(element("h3"), element("div"));
    return box;
  });
  names.forEach((group, at) => {
    const [title, list] = boxes[at].children;
    title.textContent = GROUPS[group];
    title.hidden = !GROUPS[group];
    const own = parts.filter((part) => part.group === group);
    const make = () => {
      const line = element("div");
      line.append(element("i"), element("b"), element("span"), element("em"));
      return line;
    };
    children(list, own.length, make).forEach((line, place) => {
      const { name, about, is_up, kills } = own[place];
      const [, bold, word, count] = line.children;
      line.className = is_up ? "part" : "part down";
      [bold.textContent, word.textContent] = [name, is_up ? about : "killed"];
      count.textContent = "✕".repeat(Math.min(kills, 9));
    });
  });
  const kills = parts.reduce((sum, part) => sum + part.kills, 0);
  $("killed").textContent = `${kills} killed by SIGKILL, and started again`;
}

function doubtLine({ id, state, outcome, branches, after_s }) {
  const line = element("li", after_s === undefined ? "" : "over");
  const told = after_s === undefined ? state : `${outcome} after ${after_s.toFixed(1)} s`;
  line.append(element("code", "", id.slice(-8)), element("b", "", told));
  for (const [participant, progress] of Object.entries(branches)) {
    const mark = element("span", `branch ${progress}`, BRANCHES[participant] ?? participant);
    mark.title = progress;
    line.append(mark);
  }
  return line;
}

function showDoubts({ doubts, resolved, phase }) {
  const { value, is_fresh, count } = doubts;
  $("doubt-count").textContent = count;
  $("doubt-source").textContent = is_fresh
    ? "voted yes, and waiting to hear the outcome"
    : phase === "opening" ? "" : "the coordinator does not answer; as last seen";
  const lines = [...value, ...resolved].map(doubtLine);
  if (value.length === 0) lines.unshift(element("li", "none", "No transaction is in doubt."));
  $("doubts").replaceChildren(...lines);
}

function showCustomers({ faces, counts }) {
  children($("faces"), faces.length, () => element("i")).forEach((dot, at) => {
    dot.className = `face ${faces[at]}`;
  });
  const told = faces.filter((face) => !["waiting", "asking", "again"].includes(face)).length;
  const orders = Object.values(counts).reduce((sum, count) => sum + count, 0);
  $("customers-lead").textContent =
    `${told} of ${faces.length} have their answer; resellers send several of the ${orders} orders`;
  const shown = Object.keys(WORDS).filter((word) => word === "sold" || counts[word]);
  children($("legend"), shown.length, () => {
    const item = element("li");
    item.append(element("i"), element("span"));
    return item;
  }).forEach((item, at) => {
    const word = shown[at];
    item.firstChild.className = `key ${word}`;
    item.lastChild.textContent = `${counts[word] ?? 0} ${WORDS[word]}`;
  });
}

function showStory({ story }) {
  // Only what is new is read out.
  const newest = story.length > 0 ? `${story[0].at_s} ${story[0].text}` : "";
  if ($("story").dataset.newest === newest) return;
  $("story").dataset.newest = newest;
  $("story").replaceChildren(
    ...story.slice(0, 12).map(({ at_s, text, kind }) => {
      const line = element("li", kind);
      line.append(element("time", "", `${at_s.toFixed(1)} s`), element("span", "", text));
      return line;
    }),
  );
}

function showPhase({ phase, verdict, at_s }) {
  const shown = $("phase");
  if (verdict === null) {
    shown.className = "";
    shown.textContent = `${PHASES[phase] ?? phase} · ${Math.floor(at_s)} s`;
    return;
  }
  shown.className = verdict.is_clean ? "good" : "bad";
  shown.textContent = verdict.is_clean ? "The books are right" : "The books are wrong";
  if (verdict.is_clean) $("lead").textContent = verdict.lines.slice(0, 3).join(" · ");
  else $("lead").textContent = verdict.lines[0];
}

function show(shop) {
  if (!shop.parts) return;
  for (const part of [showPhase, showShelf, showBooks, showParts, showDoubts, showCustomers]) part(shop);
  showStory(shop);
}

const events = new EventSource("events");
let isOver = false;
events.addEventListener("message", ({ data }) => {
  const shop = JSON.parse(data);
  show(shop);
  isOver = shop.verdict !== null && shop.verdict !== undefined;
});
events.addEventListener("error", () => {
  // What was shown last stays.
  if (isOver) events.close();
  else $("phase").textContent = "the sale does not answer";
});
