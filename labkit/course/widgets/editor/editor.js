// An editor for a policy, by CodeMirror (https://codemirror.net). `make editor` bundles this file into codemirror.js.
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { bracketMatching, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, setDiagnostics } from "@codemirror/lint";
import { Annotation, EditorState } from "@codemirror/state";
import { Decoration, EditorView, MatchDecorator, ViewPlugin, WidgetType, keymap, lineNumbers } from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

const ISSUER = /oidc\.eks\.[\w-]+\.amazonaws\.com\/id\/[0-9A-F]{28}([0-9A-F]{4})\b/g;
const shown = Annotation.define(); // on a text that the page shows, and that nobody typed

class Shortened extends WidgetType {
  constructor(issuer, end) {
    super();
    this.issuer = issuer;
    this.end = end;
  }

  eq(other) { return other.issuer === this.issuer; }

  toDOM() {
    const name = document.createElement("span");
    Object.assign(name, { className: "labkit-issuer", textContent: `…${this.end}`, title: this.issuer });
    return name;
  }
}

// An issuer's name is long and always the same, so the line shows its end, until the cursor comes to it.
const issuers = ViewPlugin.fromClass(class {
  constructor(view) { this.shorten(view); }

  update(changed) {
    if (changed.docChanged || changed.selectionSet || changed.viewportChanged || changed.focusChanged) this.shorten(changed.view);
  }

  shorten(view) {
    const { from: first, to: last } = view.state.selection.main;
    this.decorations = new MatchDecorator({
      regexp: ISSUER,
      decorate(add, from, to, [issuer, end]) {
        const edited = view.hasFocus && from <= last && first <= to && !(first < from && to < last);
        if (!edited) add(from, to, Decoration.replace({ widget: new Shortened(issuer, end) }));
      },
    }).createDeco(view);
  }
}, { decorations: (plugin) => plugin.decorations });

/** An editor in `parent`. `changed` gets each text that is typed; `labelledBy` is the id of the editor's visible name. */
export function policyEditor({ parent, labelledBy, changed }) {
  const view = new EditorView({
    parent,
    extensions: [
      lineNumbers(), lintGutter(), history(), json(), bracketMatching(), issuers,
      syntaxHighlighting(classHighlighter),
      keymap.of([...defaultKeymap, ...historyKeymap]), // without Tab, which leaves the editor
      EditorView.lineWrapping,
      // Typed over several lines, Chromium leaves an empty line of its own, which CodeMirror would take for text.
      EditorView.domEventHandlers({
        beforeinput(event, { state, dispatch }) {
          if (event.inputType !== "insertText" || !event.data || state.selection.main.empty) return false;
          event.preventDefault();
          dispatch(state.replaceSelection(event.data));
          return true;
        },
      }),
      EditorView.contentAttributes.of({ "aria-labelledby": labelledBy, spellcheck: "false", tabindex: "0" }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged && !update.transactions.some((each) => each.annotation(shown))) changed(text());
      }),
    ],
  });
  const text = () => view.state.doc.toString();

  function lineAt(number) { return view.state.doc.line(Math.min(Math.max(number, 1), view.state.doc.lines)); }

  return {
    text,
    show(policy) {
      if (policy === text()) return;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: policy }, annotations: shown.of(true) });
    },
    select(number) {
      const { from, to } = lineAt(number);
      view.dispatch({ selection: { anchor: from, head: to }, effects: EditorView.scrollIntoView(from, { y: "center" }) });
      view.focus();
    },
    /** Mark the place of a problem, or remove the mark of one that is gone. Lines and columns count from 1. */
    mark(problem) {
      const found = [];
      if (problem?.line) {
        const { from, to } = lineAt(problem.line);
        const start = Math.min(from + Math.max(problem.column - 1, 0), to);
        found.push({ from: problem.column ? start : from, to, severity: "error", message: problem.what });
      }
      view.dispatch(setDiagnostics(view.state, found));
    },
    focus: () => view.focus(),
    end: () => view.destroy(),
  };
}
