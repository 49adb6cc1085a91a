// The calls to AWS as rows of a sequence diagram. Python sends them; every text is set as text, never as HTML.

const A_FRAME = 25; // rows added between two frames of the screen
const SAID_EVERY = 1000; // milliseconds between two announcements, so that a screen reader doesn't announce each of many calls

export default { render };

function render({ model, el }) {
  const parties = model.get("parties");
  const calls = []; // in order; each call has its row
  const waiting = [];
  let current = null;
  let frame = 0;
  let telling = 0;

  const buttons = Object.fromEntries([["first", "First"], ["previous", "Previous"], ["next", "Next"], ["last", "Last"]]
    .map(([name, text]) => [name, make("button", { type: "button", className: "labkit-button" }, text)]));
  const own = make("input", { type: "checkbox" });
  const ownCount = make("span", {});
  const status = make("span", { className: "labkit-faint", role: "status" });
  const empty = make("p", { className: "labkit-empty" });
  const list = make("ol", { className: "labkit-calls" });
  const header = make("div", { className: "labkit-parties", "aria-hidden": "true" },
    ...parties.map((name) => make("span", {}, name)));
  const scroller = make("div", { className: "labkit-scroller" }, header, empty, list);

  el.classList.add("labkit-page", "labkit-watch");
  el.style.setProperty("--labkit-parties", parties.length);
  el.append(
    make("p", {}, make("strong", {}, model.get("title"))),
    make("div", { className: "labkit-buttons" }, ...Object.values(buttons),
      make("label", { className: "labkit-own" }, own, ownCount), status),
    scroller);

  const isShown = (call) => own.checked || call.sender !== model.get("own");
  const shown = () => calls.filter(isShown);
  const title = (call) => `${call.sender} → ${call.receiver}: ${call.event}`;
  const verdict = (call) => (call.refused ? `✗ ${call.decision}` : `✓ ${call.decision}`);

  function addSome() {
    frame = 0;
    const follows = scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 60;
    const added = waiting.splice(0, A_FRAME);
    for (const call of added) {
      call.row = row(call);
      calls.push(call);
    }
    list.append(...added.map((call) => call.row));
    while (calls.length > model.get("most")) drop(calls.shift());
    if (follows && !current) scroller.scrollTop = scroller.scrollHeight;
    if (waiting.length) frame = requestAnimationFrame(addSome);
    count();
    telling ||= setTimeout(tell, SAID_EVERY);
  }

  function drop(call) {
    call.row.remove();
    if (call === current) current = null;
  }

  function tell() {
    clearTimeout(telling);
    telling = 0;
    const visible = shown();
    const place = current ? visible.indexOf(current) : -1;
    const all = `${calls[0]?.number > 1 ? "the newest " : ""}${visible.length}`;
    status.textContent = place < 0 ? `${all} calls`
      : `Call ${place + 1} of ${all}: ${title(current)}, ${verdict(current)}`;
  }

  function count() {
    const mine = calls.filter((call) => call.sender === model.get("own")).length;
    const visible = own.checked ? calls.length : calls.length - mine;
    ownCount.textContent = `your own calls, too (${mine})`;
    empty.hidden = visible > 0;
    empty.textContent = `No pod has called AWS yet. Next: ${model.get("next")}.`
      + (mine ? " To see your own calls, tick the box." : "");
    // The buttons stay enabled at the first and the last call: a disabled button would lose the keyboard's focus.
    for (const button of Object.values(buttons)) button.disabled = !visible;
  }

  function row(call) {
    const carries = call.event === "AssumeRoleWithWebIdentity" ? "token" : "request";
    const answer = call.refused ? "refusal" : call.event.startsWith("AssumeRole") ? "credentials" : "answer";
    const ends = [call.sender, call.receiver].sort((one, other) => parties.indexOf(one) - parties.indexOf(other));
    const head = make("button", { type: "button", className: "labkit-head", "aria-expanded": "false", tabIndex: -1 },
      make("span", { className: "labkit-says" },
        make("span", {}, title(call)),
        make("span", { className: `labkit-state labkit-${call.refused ? "wrong" : "right"}` }, verdict(call)),
        make("span", { className: "labkit-faint" }, call.step ? `step ${call.step}` : "")),
      make("span", { className: "labkit-lanes", "aria-hidden": "true" },
        make("span", { className: "labkit-end" }, ends[0]),
        make("span", { className: "labkit-arrows" },
          arrow(call.sender, call.receiver, carries), arrow(call.receiver, call.sender, answer)),
        make("span", { className: "labkit-end" }, ends[1])));
    head.addEventListener("click", () => { toggle(call); choose(call); });
    head.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      step(by);
      current.row.firstChild.focus();
    });
    const classes = [call.sender === model.get("own") ? "labkit-mine" : "", call.refused ? "labkit-refused" : ""];
    return make("li", { className: classes.filter(Boolean).join(" ") }, head);
  }

  function arrow(sender, receiver, carries) {
    const from = parties.indexOf(sender);
    const to = parties.indexOf(receiver);
    const drawn = make("span", { className: `labkit-arrow ${to < from ? "labkit-leftwards" : ""}` },
      make("span", { className: "labkit-carries" }, carries), make("span", { className: "labkit-travels" }));
    drawn.style.setProperty("--from", Math.min(from, to));
    drawn.style.setProperty("--over", Math.abs(to - from));
    return drawn;
  }

  function toggle(call, open = call.row.children.length === 1) {
    const head = call.row.firstChild;
    head.setAttribute("aria-expanded", open);
    while (call.row.children.length > 1) call.row.lastChild.remove();
    if (!open) return;
    const facts = [["step", call.says && `${call.step}. ${call.says}`], ["who", call.who], ["when", call.time],
      ["request", call.request], ["answer", call.answer], ["reason", call.reason]];
    call.row.append(make("dl", {}, ...facts.filter(([, text]) => text).flatMap(([name, text]) => [
      make("dt", {}, name), make("dd", {}, text.includes("\n") ? make("pre", { tabIndex: 0 }, text) : text)])));
  }

  function choose(call) {
    current?.row.classList.remove("labkit-current");
    if (current) current.row.firstChild.tabIndex = -1;
    current = call;
    call.row.classList.add("labkit-current");
    call.row.firstChild.tabIndex = 0;
    tell();
  }

  function step(by) {
    const visible = shown();
    if (!visible.length) return;
    const place = current ? visible.indexOf(current) : by > 0 ? -1 : visible.length;
    const next = visible[Math.max(0, Math.min(visible.length - 1, place + by))];
    if (current && current !== next) toggle(current, false);
    toggle(next, true);
    choose(next);
    const top = next.row.offsetTop - header.offsetHeight;
    const fits = next.row.offsetTop + next.row.offsetHeight <= scroller.scrollTop + scroller.clientHeight;
    if (!fits || top < scroller.scrollTop) scroller.scrollTop = top;
  }

  function heard(message) {
    if (message.failed) {
      status.textContent = `The trail can't be read: ${message.failed}. Next: run the opening cell, then this one again.`;
      return;
    }
    const last = (waiting.at(-1) ?? calls.at(-1))?.number ?? 0;
    waiting.push(...message.calls.filter((call) => call.number > last));
    frame ||= requestAnimationFrame(addSome);
  }

  // In command mode, JupyterLab would handle some of these keys itself.
  for (const type of ["keydown", "keyup", "keypress"]) el.addEventListener(type, (event) => event.stopPropagation());
  buttons.first.addEventListener("click", () => step(-Infinity));
  buttons.previous.addEventListener("click", () => step(-1));
  buttons.next.addEventListener("click", () => step(1));
  buttons.last.addEventListener("click", () => step(Infinity));
  own.addEventListener("change", () => { el.classList.toggle("labkit-all", own.checked); count(); tell(); });
  model.on("msg:custom", heard);
  model.send("watch");
  count();
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(telling);
    model.off("msg:custom", heard);
    model.send("leave");
  };
}
