/** What the browser remembers; a browser that forbids it only forgets. */

const PREFIX = "rlhf_jax.";

/** What this tab remembers until it is closed. */
export const tabMemory = memory(() => sessionStorage);

/** What every tab of this browser remembers. */
export const browserMemory = memory(() => localStorage);

/** `storage` is a function because where storage is forbidden already naming it throws. */
function memory(storage) {
  const attempt = (action) => {
    try {
      return action(storage());
    } catch {
      return null;
    }
  };
  return {
    get: (key) => attempt((store) => store.getItem(PREFIX + key)),
    set: (key, value) => attempt((store) => store.setItem(PREFIX + key, value)),
    take: (key) =>
      attempt((store) => {
        const value = store.getItem(PREFIX + key);
        store.removeItem(PREFIX + key);
        return value;
      }),
  };
}
