import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { lacks, peers } from "../peers/peers.ts";

const script = path.resolve(import.meta.dirname, "../../docs/model/run.sh");

test.skipIf(lacks("spin"))(
  "the model's smaller proofs hold, two gates can be open as its witnesses say, and mutants are caught",
  async () => {
    const env = { ...process.env, SPIN: peers.spin, OPT: "-O1" };
    const ended = await promisify(execFile)("bash", [script, "quick"], { env }).catch((error: unknown) => error);
    const { stdout } = ended as { readonly stdout: string };
    const lines = stdout.split("\n").filter((line) => / states /.test(line));
    expect(
      lines.filter((line) => !line.startsWith("ok ")),
      stdout,
    ).toEqual([]);
    expect(lines.filter((line) => / holds /.test(line))).toHaveLength(3);
    expect(lines.filter((line) => / found /.test(line))).toHaveLength(28);
  },
  180_000,
);
