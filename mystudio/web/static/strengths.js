// Edits as a person makes them: a constant strength, or key frames, for each direction; the same as the commands' edits.
export class Strengths {
  constructor(names, times) {
    this.times = times;
    this.all = new Map(names.map((name) => [name, { strength: 0, keys: null }]));
  }

  // The strength at a time: constant, or linear between key frames and constant outside them.
  at(name, time) {
    const { strength, keys } = this.all.get(name);
    if (!keys) return strength;
    const after = keys.findIndex(([when]) => when >= time);
    if (after < 0) return keys.at(-1)[1];
    const [end, high] = keys[after];
    if (after === 0 || end === time) return high;
    const [start, low] = keys[after - 1];
    return low + ((high - low) * (time - start)) / (end - start);
  }

  key(name, time) { return this.all.get(name).keys?.find(([when]) => when === time); }

  // Set what a slider shows: the constant strength, or the key frame of this moment.
  set(name, time, value) {
    const edit = this.all.get(name);
    if (!edit.keys) { edit.strength = value; return; }
    const key = this.key(name, time);
    if (key) key[1] = value;
    else edit.keys = [...edit.keys, [time, value]].sort((a, b) => a[0] - b[0]);
  }

  // Put a key frame at a moment, or take it away; without the last one the strength is constant again.
  toggle(name, time) {
    const edit = this.all.get(name), value = round(this.at(name, time));
    if (this.key(name, time)) {
      edit.keys = edit.keys.filter(([when]) => when !== time);
      if (!edit.keys.length) Object.assign(edit, { strength: value, keys: null });
    } else if (edit.keys) this.set(name, time, value);
    else edit.keys = [[time, value]];
  }

  // Move a key frame to another moment that has none; says whether it moved.
  move(name, from, to) {
    if (to === undefined || this.key(name, to)) return false;
    this.key(name, from)[0] = to;
    this.all.get(name).keys.sort((a, b) => a[0] - b[0]);
    return true;
  }

  clear(name) { this.all.set(name, { strength: 0, keys: null }); }

  changed(name) { const { strength, keys } = this.all.get(name); return keys ? true : strength !== 0; }

  // The edits that change something, as the server takes them: constant ones first, as the command orders them.
  edits(edge) {
    const found = [];
    for (const [name, { strength, keys }] of this.all) {
      if (keys ? keys.some(([, value]) => value !== 0) : strength !== 0) found.push(keys ? { name, keys: structuredClone(keys), edge } : { name, strength, edge });
    }
    return found.sort((a, b) => ("keys" in a) - ("keys" in b));
  }

  stored() { return JSON.stringify([...this.all]); }

  // Take back what was stored; what does not fit this take is left out.
  restore(text) {
    let found = [];
    try { found = JSON.parse(text) ?? []; } catch { /* nothing usable was stored */ }
    const known = new Set(this.times);
    for (const [name, edit] of Array.isArray(found) ? found : []) {
      const keys = edit?.keys?.filter?.(([when, value]) => known.has(when) && Number.isFinite(value)) ?? null;
      if (this.all.has(name) && Number.isFinite(edit?.strength)) this.all.set(name, { strength: edit.strength, keys: keys?.length ? keys : null });
    }
  }
}

export const round = (value) => Math.round(value * 100) / 100;
export const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);

// The commands that make the same take.
export function commands(take, name, edits) {
  const edge = edits[0]?.edge ?? "project";
  const constant = edits.filter((edit) => !edit.keys).map((edit) => ` --set ${edit.name}=${edit.strength}`);
  const keyed = edits.filter((edit) => edit.keys).map((edit) => `${edit.name} = ${JSON.stringify(edit.keys)}`);
  const line = `mystudio edit ${take}.take -o ${name}.take${constant.join("")}${keyed.length ? " --keys keys.toml" : ""}${edge === "project" ? "" : ` --edge ${edge}`}`;
  return [line, `mystudio render ${name}.take -o ${name}.mp4 --view side-by-side`, ...(keyed.length ? ["", "# keys.toml: seconds and strength", ...keyed] : [])].join("\n");
}
