/** What Sluice asks of its guardian: one JSON object a line, on the guardian's descriptor 3. */
export type Request =
  | {
      readonly do: "start";
      readonly id: number;
      readonly argv: readonly string[];
      readonly env: Environment;
      /** Soft limit of open files for the command; without it the guardian's own. */
      readonly openFiles?: number | undefined;
    }
  /** To the command alone, or to its whole process group, as a terminal does. */
  | { readonly do: "signal"; readonly id: number; readonly signal: NodeJS.Signals; readonly group: boolean }
  /** The next message on descriptor 4 carries descriptors: keep them open until `release`, or to the end. */
  | { readonly do: "hold"; readonly key: string }
  | { readonly do: "release"; readonly key: string }
  /** Ask all that is left of the application to end, kill what is still there after `graceMs`, and say `ended`. */
  | { readonly do: "end"; readonly graceMs: number };

/** What the guardian answers and reports. */
export type Report =
  | { readonly is: "ready" }
  | { readonly is: "started"; readonly id: number; readonly pid: number }
  /** The command could not be started; `code` is the name of errno. */
  | { readonly is: "failed"; readonly id: number; readonly code: string }
  | { readonly is: "exited"; readonly id: number; readonly code: number | null; readonly signal: NodeJS.Signals | null }
  | { readonly is: "held"; readonly key: string; readonly error?: string }
  | { readonly is: "ended" };

export type Environment = Readonly<Record<string, string | undefined>>;

/** Descriptors of the guardian: its channel to Sluice, and the socket on which open files come. */
export const CHANNEL_FD = 3;
export const FILES_FD = 4;

/** Cuts a stream into lines and parses each as JSON; the two ends are one program, so a bad line is a bug and throws. */
export function lineReader(onMessage: (message: unknown) => void): (chunk: string) => void {
  let rest = "";
  return (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onMessage(JSON.parse(line));
  };
}
