// A folded question becomes its answers as buttons: a click shows the chosen answer's own explanation.
// Without JavaScript, the question unfolds and shows all answers.
for (const folded of document.querySelectorAll("details")) {
  const answers = [...folded.querySelectorAll(":scope > ul > li")];
  const verdicts = answers.map((answer) => /^(✓ right|✗ wrong): /.exec(answer.lastChild.textContent)?.[1]);
  if (!answers.length || verdicts.includes(undefined)) continue;
  const text = made("p", { textContent: folded.firstElementChild.textContent });
  const explanation = made("p", { className: "explanation", role: "status" });
  const buttons = answers.map((answer, n) => {
    const button = made("button", { type: "button", textContent: answer.firstChild.textContent, ariaPressed: "false" });
    button.addEventListener("click", () => {
      for (const each of buttons) each.ariaPressed = String(each === button);
      button.dataset.verdict = verdicts[n].slice(2);
      explanation.dataset.verdict = button.dataset.verdict;
      explanation.textContent = answer.lastChild.textContent;
    });
    return button;
  });
  const question = made("div", { className: "question", role: "group", ariaLabel: text.textContent });
  question.append(text, ...buttons, explanation);
  folded.replaceWith(question);
}

// What Sphinx leaves out for keyboards and screen readers: a box that scrolls has the focus, a caption is a heading of
// the second level, and a fold is named by its text.
for (const box of document.querySelectorAll("pre, .table-wrapper, .labkit-report")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
for (const fold of document.querySelectorAll("summary[aria-label]")) fold.removeAttribute("aria-label");

function made(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
