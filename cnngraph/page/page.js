const data = JSON.parse(document.getElementById("data").textContent);
const measures = [["w", "parameters"], ["m", "MACs"], ["a", "activations"]];
if ("t" in data.tree) measures.push(["t", "time"]);
const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

// --- the network -------------------------------------------------------------------------------

const nodes = new Map(); // path -> tree
const byLine = new Map(); // "file:line" -> trees
const prepare = (tree, parent) => {
  tree.parent = parent;
  nodes.set(tree.c || !nodes.has(tree.p) ? tree.p : `${tree.p}#`, tree); // a block and its join
  if (tree.l) {
    const key = tree.l.join(":");
    if (!byLine.has(key)) byLine.set(key, []);
    byLine.get(key).push(tree);
  }
  for (const part of tree.c || []) prepare(part, tree);
};
prepare(data.tree, null);
const unfolded = new Set([data.tree]);
let shown = null; // the trees that a search found, and those around them; null without a search
let chosen = null;
const rows = new Map(); // tree -> row

const short = (key, value) => {
  if (key === "t") return value >= 0.1 ? `${(value * 1e3).toFixed(0)} ms` : `${(value * 1e3).toFixed(2)} ms`;
  const unit = key === "a" ? "B" : "";
  for (const [limit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= limit) return `${(value / limit).toPrecision(3)} ${name}${unit}`;
  }
  return value ? `${value} ${unit}`.trim() : "-";
};
const share = (key, value) => (data.tree[key] ? (100 * value) / data.tree[key] : 0);

const render = () => {
  const place = $("rows");
  const focused = document.activeElement && document.activeElement.classList.contains("row");
  rows.clear();
  place.replaceChildren();
  const add = (tree, level) => {
    if (shown && !shown.has(tree)) return;
    place.append(row(tree, level));
    if (tree.c && (shown || unfolded.has(tree))) for (const part of tree.c) add(part, level + 1);
  };
  add(data.tree, 1);
  const current = rows.get(chosen) || rows.get(data.tree);
  if (current) current.tabIndex = 0;
  if (focused && current) current.focus({ preventScroll: true });
};

const row = (tree, level) => {
  const element = make("div", "row");
  element.setAttribute("role", "treeitem");
  element.setAttribute("aria-level", level);
  element.setAttribute("aria-selected", tree === chosen);
  if (tree.c) element.setAttribute("aria-expanded", Boolean(shown || unfolded.has(tree)));
  element.tabIndex = -1;
  const name = make("span", "name");
  name.style.paddingLeft = `${(level - 1) * 13}px`;
  name.append(make("span", tree.f ? "marked" : "", tree.n), make("span", "kind", tree.k));
  name.title = tree.p || tree.n;
  element.append(name, make("span", "number quiet", tree.s));
  for (const [key] of measures) {
    const cost = make("span", "cost", short(key, tree[key]));
    cost.style.setProperty("--tone", `var(--${key})`);
    cost.style.setProperty("--share", `${share(key, tree[key])}%`);
    element.append(cost);
  }
  element.addEventListener("click", () => {
    if (tree.c && (tree === chosen || !unfolded.has(tree))) toggle(tree);
    choose(tree);
  });
  element.addEventListener("mouseenter", () => near(tree, true));
  element.addEventListener("mouseleave", () => near(tree, false));
  rows.set(tree, element);
  return element;
};

const toggle = (tree, open = !unfolded.has(tree)) => {
  if (open) unfolded.add(tree);
  else unfolded.delete(tree);
  render();
};

const reveal = (tree) => {
  for (let above = tree.parent; above; above = above.parent) unfolded.add(above);
  if (shown && !shown.has(tree)) { shown = null; $("search").value = ""; $("found").textContent = ""; }
};

const choose = (tree, scroll = false) => {
  chosen = tree;
  reveal(tree);
  render();
  rows.get(tree).scrollIntoView({ block: "nearest" });
  for (const line of document.querySelectorAll(".line.chosen")) line.classList.remove("chosen");
  const line = lineOf(tree);
  if (line) {
    line.classList.add("chosen");
    const file = line.parentElement;
    file.scrollTop = line.offsetTop - file.offsetTop - file.clientHeight / 2;
  }
  for (const box of document.querySelectorAll(".sheet .chosen")) box.classList.remove("chosen");
  for (let above = tree; above; above = above.parent) {
    const box = above.p && document.querySelector(`.sheet [data-path="${CSS.escape(above.p)}"]`);
    if (box) { box.classList.add("chosen"); break; }
  }
  describe(tree);
  if (scroll) rows.get(tree).focus();
};

const describe = (tree) => {
  const place = $("details");
  const facts = measures.map(([key, name]) =>
    `${name} ${short(key, tree[key])} (${share(key, tree[key]).toFixed(1)}%)`);
  place.replaceChildren(
    make("strong", "", tree.p || tree.n),
    make("div", "", `${tree.k}${tree.d ? ` [${tree.d}]` : ""}, output ${tree.s}${tree.x ? ", training only" : ""}`),
    make("div", "faded", facts.join(" · ")));
  if (tree.f) place.append(make("div", "", `fused: ${tree.f}`));
  if (tree.i) {
    const reads = make("div", "", "reads ");
    for (const path of tree.i) reads.append(link(path));
    place.append(reads);
  }
};

const link = (path) => {
  const target = nodes.get(path) || nodes.get(`${path}#`);
  const button = make("button", "", path);
  if (target) button.addEventListener("click", () => choose(target, true));
  else button.disabled = true;
  return button;
};

// --- search and keys ---------------------------------------------------------------------------

const search = () => {
  const words = $("search").value.trim().toLowerCase();
  shown = null;
  $("found").textContent = "";
  if (words) {
    shown = new Set([data.tree]);
    let count = 0;
    for (const tree of nodes.values()) {
      if (!`${tree.p} ${tree.k} ${tree.d || ""} ${tree.s}`.toLowerCase().includes(words)) continue;
      count += 1;
      if (count > 500) continue;
      for (let above = tree; above; above = above.parent) shown.add(above);
    }
    $("found").textContent = count === 1 ? "1 found" : `${count} found`;
  }
  render();
};
$("search").addEventListener("input", search);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== $("search")) {
    event.preventDefault();
    $("search").focus();
  } else if (event.key === "Escape") {
    $("search").value = "";
    search();
  }
});

$("rows").addEventListener("keydown", (event) => {
  const order = [...rows.keys()];
  const here = order.find((tree) => rows.get(tree) === document.activeElement);
  if (!here) return;
  const at = order.indexOf(here);
  const go = (tree) => tree && choose(tree, true);
  const open = shown || unfolded.has(here);
  const actions = {
    ArrowDown: () => go(order[at + 1]),
    ArrowUp: () => go(order[at - 1]),
    ArrowRight: () => (here.c && !open ? toggle(here, true) : here.c && go(order[at + 1])),
    ArrowLeft: () => (here.c && open && !shown ? toggle(here, false) : go(here.parent)),
    Home: () => go(order[0]),
    End: () => go(order[order.length - 1]),
    Enter: () => { if (here.c) toggle(here); choose(here, true); },
    " ": () => { if (here.c) toggle(here); choose(here, true); },
  };
  if (event.key in actions) {
    event.preventDefault();
    actions[event.key]();
  }
});

// --- the spec ----------------------------------------------------------------------------------

const lineOf = (tree) => tree.l && $(`line-${tree.l[0]}-${tree.l[1]}`);
const near = (tree, on) => {
  const line = lineOf(tree);
  if (line) line.classList.toggle("near", on);
};
for (const [key, trees] of byLine) {
  const line = $(`line-${key.replace(":", "-")}`);
  if (!line) continue;
  line.classList.add("linked");
  line.tabIndex = 0;
  line.setAttribute("role", "button");
  const hover = (on) => {
    for (const tree of trees) if (rows.has(tree)) rows.get(tree).classList.toggle("near", on);
  };
  const pick = () => {
    choose(trees[0]);
    if (trees.length === 1) return;
    const list = make("div", "", `${trees.length} come from this line: `);
    for (const tree of trees.slice(0, 20)) list.append(link(tree.p));
    if (trees.length > 20) list.append(" …");
    $("details").append(list);
  };
  line.addEventListener("click", pick);
  line.addEventListener("keydown", (event) => event.key === "Enter" && pick());
  line.addEventListener("mouseenter", () => hover(true));
  line.addEventListener("mouseleave", () => hover(false));
}

// --- bars, drawing -----------------------------------------------------------------------------

const parts = () => {
  let found = data.tree.c || [];
  while (found.length === 1 && found[0].c) found = found[0].c;
  return found.flatMap((tree) => (tree.k === "sequential" && tree.c ? tree.c : [tree]));
};
const tones = ["#56b4e9", "#e69f00", "#5cc2a3", "#f0e442", "#e79f6d", "#cc79a7", "#9db7d5"];
for (const [key, name] of measures) {
  const bar = make("div", "shares");
  parts().forEach((tree, index) => {
    const percent = share(key, tree[key]);
    if (!percent) return;
    const segment = make("button", "", percent > 6 ? tree.n : "");
    segment.style.width = `${percent}%`;
    segment.style.background = tones[index % tones.length];
    segment.title = `${tree.p}: ${short(key, tree[key])}, ${percent.toFixed(1)}%`;
    segment.setAttribute("aria-label", `${name}, ${segment.title}`);
    segment.addEventListener("click", () => choose(tree, true));
    bar.append(segment);
  });
  $("bars").append(make("span", "faded", name), bar, make("span", "number", short(key, data.tree[key])));
}

for (const box of document.querySelectorAll(".sheet [data-path]")) {
  box.addEventListener("click", () => {
    const tree = nodes.get(box.dataset.path);
    if (tree) choose(tree, true);
  });
}

$("tree").style.setProperty("--measures", measures.length);
for (const [, name] of measures) $("head").append(make("span", "number", name));
for (const part of data.tree.c || []) if ((data.tree.c || []).length === 1) unfolded.add(part);
render();
