// A folded question becomes its answers as buttons: a click shows the chosen answer's own explanation.
// Without JavaScript, the question unfolds and shows all answers. `make book` puts `make` of the widgets before this text.
for (const folded of document.querySelectorAll("details")) {
  const answers = [...folded.querySelectorAll(":scope > ul > li")];
  const verdicts = answers.map((answer) => /^(✓ right|✗ wrong): /.exec(answer.lastChild.textContent)?.[1]);
  if (!answers.length || verdicts.includes(undefined)) continue;
  const text = make("p", {}, folded.firstElementChild.textContent);
  const explanation = make("p", { className: "explanation", role: "status" });
  const buttons = answers.map((answer, n) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, answer.firstChild.textContent);
    button.addEventListener("click", () => {
      for (const each of buttons) each.setAttribute("aria-pressed", each === button);
      button.dataset.verdict = verdicts[n].slice(2);
      explanation.dataset.verdict = button.dataset.verdict;
      explanation.textContent = answer.lastChild.textContent;
    });
    return button;
  });
  const named = { className: "question", role: "group", "aria-label": text.textContent };
  folded.replaceWith(make("div", named, text, ...buttons, explanation));
}

// What Sphinx leaves out for keyboards and screen readers: a box that scrolls has the focus, a caption is a heading of
// the second level, and a fold is named by its text.
for (const box of document.querySelectorAll("pre, .table-wrapper, .labkit-report")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
for (const fold of document.querySelectorAll("summary[aria-label]")) fold.removeAttribute("aria-label");
