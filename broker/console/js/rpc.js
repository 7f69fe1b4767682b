// Calls of the broker's methods, and its streams of events. Only methods that read are called.

export class CallError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const REQUEST = { method: "POST", credentials: "same-origin", cache: "no-store", redirect: "error" };
const SILENCE = 40_000; // Milliseconds; the broker sends a sign of life every 15 s.
const PATIENCE = 60_000; // Milliseconds for one call: a way that is lost need not say so.

async function post(name, fields, signal) {
  let answer;
  try {
    answer = await fetch(`/v1/${name}`, {
      ...REQUEST,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields ?? {}),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("unreachable", "The broker does not answer.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new CallError(said.error?.code ?? "internal", said.error?.message ?? `HTTP ${answer.status}`);
}

/** The result of one call. Throws CallError, whose code is one of docs/rpc.md, or unreachable. */
export async function call(name, fields, signal) {
  const late = AbortSignal.timeout(PATIENCE);
  const answer = await post(name, fields, signal ? AbortSignal.any([signal, late]) : late);
  try {
    return (await answer.json()).result;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("unreachable", "The broker stopped in the middle of its answer.");
  }
}

/** Read server-sent events until the stream ends; `on` has begun(), event(data, id), lagged(n). */
export async function stream(name, fields, on, signal) {
  const quiet = new AbortController();
  const ended = AbortSignal.any([signal, quiet.signal]);
  let alarm = 0;
  const heard = () => {
    clearTimeout(alarm);
    alarm = setTimeout(() => quiet.abort(), SILENCE);
  };
  heard();
  try {
    const answer = await post(name, fields, ended);
    on.begun();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) tell(block, on);
    }
  } catch (error) {
    if (error instanceof CallError) throw error;
    if (signal.aborted) throw error;
  } finally {
    clearTimeout(alarm);
  }
  throw new CallError("unreachable", "The stream from the broker ended.");
}

function tell(block, on) {
  let kind = "message";
  let id;
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("id: ")) id = Number(line.slice(4));
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (!data) return;
  if (kind === "lagged") on.lagged(JSON.parse(data).lost);
  else on.event(JSON.parse(data), id);
}

/** Keep a stream: where it ends it begins again, after the last number seen; until `signal`. */
export async function follow(name, fields, on, signal) {
  let since;
  let wait = 500;
  while (!signal.aborted) {
    const wanted = since === undefined ? fields : { ...fields, since };
    const told = {
      begun: () => { wait = 500; on.begun(); },
      event: (data, id) => { since = id ?? since; on.event(data); },
      lagged: on.lagged,
    };
    try {
      await stream(name, wanted, told, signal);
    } catch (error) {
      if (signal.aborted) return;
      on.lost(error);
      if (error.code === "denied") return;
    }
    await new Promise((resume) => {
      setTimeout(resume, wait * (0.75 + Math.random() / 2));
      signal.addEventListener("abort", resume, { once: true });
    });
    wait = Math.min(wait * 2, 15_000);
  }
}
