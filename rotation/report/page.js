"use strict";
/* Search, sorting and accounts of a report. Everything that is written becomes text, never markup. */
(() => {
  const PRINTED = 100, MORE = 1000;
  const facts = JSON.parse(document.getElementById("facts").textContent), PAGE = facts.listed;
  const [NAME, OWNER, STANDING, ALIVE, PHASE, ISSUER, STORES, SINCE, DUE, TOLD, LIVES, EVENTS] = Array(12).keys();
  const word = (number) => (number < 0 ? "" : facts.words[number]);
  const id = (name) => document.getElementById(name);

  /** An element with text, elements and attributes. */
  const make = (tag, content, attributes = {}) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    for (const part of [content].flat()) if (part !== null && part !== "") made.append(part);
    return made;
  };
  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    const iso = new Date(seconds * 1000).toISOString();
    return make("time", iso.slice(0, 10) + " " + iso.slice(11, 16), { datetime: iso.slice(0, 19) + "Z" });
  };
  const short = (run) => run.replace(/^([0-9a-f]{6})[0-9a-f]*@/, "$1@");

  /* --- one account --- */

  const MARKS = { current: "good", condemned: "bad", "revoked, unproven": "bad", "under way": "warn", draining: "warn" };
  const USUAL = "refused by its issuer";
  const capital = (name) => name[0].toUpperCase() + name.slice(1);
  const COLUMNS = ["created", "verified", "promoted", "superseded", "condemned", "revoked", "shown dead"];

  /** The steps of a credential by their name; see _life() in page.py. */
  const steps = ([, , first, text]) => {
    let at = first, by = -1;
    return new Map(text.split(";").map((step) => {
      const [what, since, run, incident, note] = step.split(",");
      const number = (some) => (some ? Number(some) : -1);
      at += Number(since);
      by = run ? Number(run) : by;
      return [facts.steps[what], { at, run: by, incident: number(incident), note: number(note) }];
    }));
  };

  const life = (one) => {
    const [key, state] = one, found = steps(one);
    const born = found.get("created") || found.get("adopted") || found.get("begun");
    const stands = { created: born, "shown dead": found.get("shown dead") || found.get("closed") };
    const times = COLUMNS.map((name) => {
      const step = name in stands ? stands[name] : found.get(name);
      return make("td", step ? time(step.at) : "–", { "data-what": capital(name), role: "cell", ...(step ? {} : { class: "not" }) });
    });
    let run = -2, incident = -1;
    const said = [];
    const say = (name, verb, joint) => {
      const step = found.get(name), note = step ? word(step.note) : "";
      if (!step) return;
      const by = step.run >= 0 && step.run !== run ? " by " + short(word(step.run)) : "";
      const within = step.incident >= 0 && step.incident !== incident ? " in incident " + word(step.incident) : "";
      run = step.run;
      incident = step.incident;
      if (verb === "Shown dead" && !by && !within && note === USUAL) return; // its time and its state say so
      said.push(verb + by + within + (note ? joint + note : "") + ".");
    };
    if (found.has("adopted")) say("adopted", "Taken over", ": ");
    else say(found.has("begun") ? "begun" : "created", "Made", ": ");
    if (found.has("promoted")) say("promoted", "Promoted", " in ");
    say("discarded", "Discarded", ": ");
    say("condemned", "Condemned", ": ");
    say("contained", "Contained", ": ");
    if (!found.has("condemned")) say("revoked", "Revoked", ": ");
    say("shown dead", "Shown dead", ": ");
    say("closed", "Closed", ": ");
    const named = make("th", [key, make("span", facts.states[state], { class: "mark " + (MARKS[facts.states[state]] || "none") })],
      { scope: "row", role: "rowheader" });
    return [
      make("tr", [named, ...times], { class: "life", role: "row" }),
      make("tr", make("td", said.join(" "), { colspan: COLUMNS.length + 1, role: "cell" }), { class: "story", role: "row" }),
    ];
  };

  const account = (number) => {
    const a = facts.accounts[number], parts = [], runs = new Set();
    parts.push(make("dl", a[TOLD].map(([name, told]) => make("div", [make("dt", word(name)), make("dd", word(told))]))));
    if (a[LIVES].length) {
      const caption = "Credentials, the latest first; UTC";
      const head = ["Key", ...COLUMNS.map(capital)];
      parts.push(make("div", make("table", [
        make("caption", caption),
        make("thead", make("tr", head.map((name) => make("th", name, { scope: "col", role: "columnheader" })), { role: "row" }), { role: "rowgroup" }),
        make("tbody", [...a[LIVES]].reverse().flatMap(life), { role: "rowgroup" }),
      ], { class: "lives", role: "table" }), { class: "wide", role: "region", tabindex: "0", "aria-label": "Credentials of " + a[NAME] }));
      for (const one of a[LIVES]) for (const step of steps(one).values()) runs.add(step.run);
    } else {
      parts.push(make("p", "No credential of it is known.", { class: "empty" }));
    }
    if (a[EVENTS].length) {
      parts.push(make("h3", "What else happened"));
      parts.push(make("ul", [...a[EVENTS]].reverse().map(([, at, text, run]) => {
        runs.add(run);
        return make("li", [time(at), " " + word(text) + (run >= 0 ? ", by " + short(word(run)) : "")]);
      })));
    }
    runs.delete(-1);
    if (runs.size) {
      parts.push(make("h3", "Runs"));
      const known = new Map();
      for (const run of runs) {
        const who = word(facts.actors[run] ?? -1);
        known.set(who, [...(known.get(who) || []), short(word(run))]);
      }
      parts.push(make("ul", [...known].map(([who, those]) => make("li", (who ? "As " + who + ": " : "Of whom nothing is told: ") + those.join(", ")))));
    }
    return parts;
  };

  const list = id("list"), shownAt = id("shown"), rows = id("rows");
  if (!rows) return;
  id("still").remove();
  const accounts = [...list.children], lines = [...rows.children];
  const fill = (details) => {
    if (details.childElementCount === 1) details.append(...account(Number(details.dataset.n)));
  };
  list.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.classList.contains("account")) fill(event.target);
  }, true);

  /* --- search and sorting --- */

  const search = id("search"), standing = id("standing"), owner = id("owner"), form = search.form, rest = id("rest");
  let blobs = null, order = lines.map((_, number) => number), most = PAGE, matching = order, sorted = false;
  let before = lines.flatMap((line, number) => (line.hidden ? [] : [number]));
  const blob = (number) => {
    blobs = blobs || facts.accounts.map((a) => [
      a[NAME], word(a[OWNER]), word(a[ISSUER]), word(a[STORES]), word(a[PHASE]), ...a[LIVES].map((one) => one[0]),
    ].join(" ").toLowerCase());
    return blobs[number];
  };
  const fits = (number, words) => {
    const a = facts.accounts[number];
    if (owner.value && word(a[OWNER]) !== owner.value) return false;
    if (standing.value === "not shown dead" ? !a[ALIVE] : standing.value && word(a[STANDING]) !== standing.value) return false;
    return words.every((part) => blob(number).includes(part));
  };
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = order.filter((number) => fits(number, words));
    const visible = matching.slice(0, most), seen = new Set(visible);
    for (const number of before) if (!seen.has(number)) lines[number].hidden = accounts[number].hidden = true;
    for (const number of visible) lines[number].hidden = accounts[number].hidden = false;
    if (sorted) {
      rows.prepend(...visible.map((number) => lines[number]));
      list.prepend(...visible.map((number) => accounts[number]));
    }
    before = visible;
    const all = facts.accounts.length, some = Math.min(matching.length, most);
    const count = (number) => number.toLocaleString("en-US");
    shownAt.textContent = !matching.length ? "No secret fits. Reset shows all again."
      : (some < matching.length ? "The first " + count(some) + " of " + count(matching.length) : count(matching.length)) +
        (matching.length < all ? " that fit, of " + count(all) : "") + (all === 1 ? " secret." : " secrets.");
    rest.hidden = some === matching.length;
    id("more").textContent = "Show " + count(Math.min(MORE, matching.length - some)) + " more";
  };
  const ranks = { standing: ["overdue", "due", "within policy", "age unknown", "gone"] };
  const KEYS = {
    name: (a) => a[NAME], standing: (a) => ranks.standing.indexOf(word(a[STANDING])), phase: (a) => word(a[PHASE]),
    owner: (a) => word(a[OWNER]), issuer: (a) => word(a[ISSUER]), store: (a) => word(a[STORES]),
    age: (a) => (a[SINCE] === null ? null : facts.at - a[SINCE]), due: (a) => a[DUE],
  };
  const sort = (head) => {
    const by = head.querySelector("button").dataset.by, up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keys = facts.accounts.map(KEYS[by]), compare = new Intl.Collator("en", { numeric: true }).compare;
    const sign = up ? 1 : -1;
    order = order.slice().sort((one, other) => {
      const a = keys[one], b = keys[other];
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      return sign * (typeof a === "string" ? compare(a, b) : a - b) || one - other;
    });
    sorted = true;
    show();
  };
  id("table").querySelector("thead").addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head && event.target.closest("button")) sort(head);
  });
  let waiting = 0;
  const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { most = PAGE; show(); }); };
  search.addEventListener("input", soon);
  standing.addEventListener("change", soon);
  owner.addEventListener("change", soon);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { most = PAGE; show(); search.focus(); }));
  id("more").addEventListener("click", () => { most += MORE; show(); shownAt.setAttribute("tabindex", "-1"); shownAt.focus(); });

  /* --- links to accounts, and paper --- */

  const follow = () => {
    const details = accounts.find((one) => "#" + one.id === decodeURIComponent(location.hash));
    if (!details) return;
    if (details.hidden) before = [...before, accounts.indexOf(details)];
    details.hidden = false;
    details.open = true;
    fill(details);
    details.scrollIntoView({ block: "start" });
    details.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#account-']");
    if (link && link.hash === location.hash) follow();
  });
  let lent = [];
  addEventListener("beforeprint", () => {
    const here = accounts.filter((one) => !one.hidden);
    if (here.some((one) => one.open)) return;
    lent = here.length <= PRINTED ? here : [];
    for (const one of lent) { fill(one); one.open = true; }
  });
  addEventListener("afterprint", () => { for (const one of lent) one.open = false; lent = []; });

  form.hidden = false;
  show();
  follow();
})();
