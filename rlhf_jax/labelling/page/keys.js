/** The keyboard, and who has the focus after a click. */

/**
 * @param {Record<string, () => void>} actions by `event.key`, letters in lower case; "Undo" is Ctrl-Z or Cmd-Z.
 * @param {Set<string>} repeating the keys that go on while they are held; no other key acts more than once.
 * @param {() => boolean} isModal whether a dialog is open, which then has the keyboard to itself.
 */
export function listenToKeys(actions, repeating, isModal) {
  document.addEventListener("keydown", (event) => {
    const name = nameOf(event);
    const onButton = event.target.closest?.("button") !== null;
    // Held down, Enter would click a focused button again and again.
    if (onButton && event.repeat && event.key === "Enter") return event.preventDefault();
    if (!(name in actions) || isModal() || takesKey(event.target, name)) return;
    if (onButton && name === " ") return; // Space presses the button.
    event.preventDefault();
    if (!event.repeat || repeating.has(name)) actions[name]();
  });
}

function nameOf(event) {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.isComposing || event.altKey) return "";
  if (event.ctrlKey || event.metaKey) return name === "z" && !event.shiftKey ? "Undo" : "";
  return name;
}

/** Text fields and the speed have uses of their own for the keys, the scrubber for the arrows. */
function takesKey(target, name) {
  if (target.matches?.("input[type=range]")) return name.startsWith("Arrow");
  return target.matches?.("input, select, textarea") ?? false;
}

/**
 * After a click or a drag the control gives the focus back, so that the next key is a shortcut again and Space does not
 * press the button a second time. Who moves by keyboard keeps the focus.
 */
export function releaseFocusAfterPointer() {
  let pointer = false;
  document.addEventListener("pointerdown", () => (pointer = true), true);
  document.addEventListener("keydown", () => (pointer = false), true);
  const release = ({ target }) => pointer && target.closest?.("button, select, input[type=range]")?.blur();
  document.addEventListener("click", (event) => event.target.closest?.("select") || release(event), true);
  document.addEventListener("change", release, true);
}
