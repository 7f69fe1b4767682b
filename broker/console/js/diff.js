// Which lines were added and taken away between two texts: the shortest such list (Myers).

const MOST = 4000; // Changed lines; beyond, all of the old is taken away and all of the new added.

/** Lines in order, each {kind: "same" | "add" | "del", text}. */
export function diffLines(before, after) {
  const old = before.split("\n");
  const now = after.split("\n");
  let start = 0;
  while (start < old.length && start < now.length && old[start] === now[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < now.length - start && old[old.length - 1 - end] === now[now.length - 1 - end]) end += 1;
  const same = (text) => ({ kind: "same", text });
  return [...old.slice(0, start).map(same),
    ...shortest(old.slice(start, old.length - end), now.slice(start, now.length - end)),
    ...old.slice(old.length - end).map(same)];
}

function shortest(old, now) {
  const all = old.length + now.length;
  const most = Math.min(all, MOST);
  let reach = new Map([[1, 0]]);
  const trail = [];
  for (let steps = 0; steps <= most; steps += 1) {
    trail.push(reach);
    const next = new Map(reach);
    for (let diagonal = -steps; diagonal <= steps; diagonal += 2) {
      const down = diagonal === -steps || (diagonal !== steps && (reach.get(diagonal - 1) ?? -1) < (reach.get(diagonal + 1) ?? -1));
      let x = down ? reach.get(diagonal + 1) ?? 0 : (reach.get(diagonal - 1) ?? 0) + 1;
      while (x < old.length && x - diagonal < now.length && old[x] === now[x - diagonal]) x += 1;
      next.set(diagonal, x);
      if (x >= old.length && x - diagonal >= now.length) return walk(trail, old, now);
    }
    reach = next;
  }
  return [...old.map((text) => ({ kind: "del", text })), ...now.map((text) => ({ kind: "add", text }))];
}

function walk(trail, old, now) {
  const found = [];
  let x = old.length;
  let y = now.length;
  for (let steps = trail.length - 1; steps >= 0; steps -= 1) {
    const reach = trail[steps];
    const diagonal = x - y;
    const down = diagonal === -steps || (diagonal !== steps && (reach.get(diagonal - 1) ?? -1) < (reach.get(diagonal + 1) ?? -1));
    const from = down ? diagonal + 1 : diagonal - 1;
    const fromX = steps ? reach.get(from) ?? 0 : 0;
    const fromY = steps ? fromX - from : 0;
    while (x > fromX && y > fromY && x > 0 && y > 0 && (steps === 0 || x !== fromX + (down ? 0 : 1) || y !== fromY + (down ? 1 : 0))) {
      x -= 1;
      y -= 1;
      found.push({ kind: "same", text: old[x] });
    }
    if (!steps) break;
    if (down) {
      y -= 1;
      found.push({ kind: "add", text: now[y] });
    } else {
      x -= 1;
      found.push({ kind: "del", text: old[x] });
    }
  }
  return found.reverse();
}

/** The same with what did not change left out, but for some lines around each change. */
export function withoutSame(lines, around = 3) {
  const near = lines.map(() => false);
  lines.forEach((line, number) => {
    if (line.kind === "same") return;
    for (let n = Math.max(0, number - around); n <= Math.min(lines.length - 1, number + around); n += 1) near[n] = true;
  });
  const found = [];
  let left = 0;
  lines.forEach((line, number) => {
    if (near[number]) {
      if (left) found.push({ kind: "between", text: `${left} unchanged line${left > 1 ? "s" : ""}` });
      left = 0;
      found.push(line);
    } else {
      left += 1;
    }
  });
  if (left) found.push({ kind: "between", text: `${left} unchanged line${left > 1 ? "s" : ""}` });
  return found;
}
