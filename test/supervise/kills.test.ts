import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { eventually, isRunning, marked, SluiceProcess } from "./support.ts";

const SHAPES = path.join(import.meta.dirname, "shapes.py");
const NODE = process.execPath;

/** The application behind wrappers that lose descriptors, sessions and parents; each appends to the file `beat`. */
function shape(name: string, dir: string): string[] {
  const python = (shape: string) => ["python3", SHAPES, shape, path.join(dir, "beat")];
  const viaNode = `require("child_process").spawn("sh", ["-c", '"$@"; true', "sh", ...process.argv.slice(1)], { stdio: "inherit" })`;
  if (name === "direct child") return python("app");
  if (name === "sh -c") return ["sh", "-c", '"$@"; true', "sh", ...python("app")];
  if (name === "node, sh, app, as npm start") return [NODE, "-e", viaNode, ...python("app")];
  if (name === "subprocess with close_fds") return python("subprocess");
  if (name === "daemon") return python("daemon");
  if (name === "ignores signals, own session") return python("ignores");
  return python("forks");
}

const NAMES = [
  "direct child",
  "sh -c",
  "node, sh, app, as npm start",
  "subprocess with close_fds",
  "daemon",
  "ignores signals, own session",
  "forks all the time",
];

function startShape(name: string): SluiceProcess {
  const dir = SluiceProcess.newDir();
  return new SluiceProcess(["--", ...shape(name, dir)], { dir });
}

async function beating(sluice: SluiceProcess): Promise<void> {
  await eventually("a beat", () => existsSync(path.join(sluice.dir, "beat")));
}

/** Nothing of the application writes any more. */
async function expectSilence(sluice: SluiceProcess): Promise<void> {
  const size = statSync(path.join(sluice.dir, "beat")).size;
  await delay(300);
  expect(statSync(path.join(sluice.dir, "beat")).size).toBe(size);
}

describe.each(NAMES)("%s", (name) => {
  test("kill -9 of Sluice: everything ends", async () => {
    await using sluice = startShape(name);
    await beating(sluice);
    const guardian = await sluice.guardianPid;
    sluice.child.kill("SIGKILL");
    await eventually("everything ends", () => marked(sluice.mark).size === 0 && !isRunning(guardian));
    expect(await sluice.ended()).toBe("SIGKILL");
    await expectSilence(sluice);
  });

  test("kill -9 of the guardian: everything ends, and Sluice drains", async () => {
    await using sluice = startShape(name);
    await beating(sluice);
    process.kill(await sluice.guardianPid, "SIGKILL");
    expect(await sluice.ended()).toBe(1);
    expect(sluice.application).toEqual(new Map());
    await expectSilence(sluice);
    expect(sluice.log.join()).toContain("SLU-6006");
    expect(sluice.notes).toEqual(["start", "started", "stop", "status 1"]);
  });

  test("SIGTERM to Sluice: nothing is left", async () => {
    const dir = SluiceProcess.newDir();
    await using sluice = new SluiceProcess(["--stop-limit-ms", "1500", "--", ...shape(name, dir)], { dir });
    await beating(sluice);
    const guardian = await sluice.guardianPid;
    sluice.child.kill("SIGTERM");
    await sluice.ended();
    expect(marked(sluice.mark)).toEqual(new Map());
    expect(isRunning(guardian)).toBe(false);
    expect(existsSync(path.join(sluice.dir, "guardian.json"))).toBe(false);
    expect(sluice.notes).toContain("stop");
  });
});

const hasDeathSignal = (() => {
  try {
    execFileSync("setpriv", ["--pdeathsig", "KILL", "--", "true"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

test.skipIf(!hasDeathSignal)("kill -9 of guardian and Sluice together: the command ends", async () => {
  await using sluice = startShape("direct child");
  await beating(sluice);
  const guardian = await sluice.guardianPid;
  // Stopped, Sluice can't do anything about the guardian's end, as if both died in one moment.
  process.kill(sluice.pid, "SIGSTOP");
  process.kill(guardian, "SIGKILL");
  sluice.child.kill("SIGKILL");
  await eventually("the command ends", () => marked(sluice.mark).size === 0);
  expect(isRunning(guardian)).toBe(false);
});

test("orphans that ended don't stay as zombies of the guardian", async () => {
  await using sluice = new SluiceProcess([
    "--",
    "sh",
    "-c",
    "for i in 1 2 3 4 5; do (sleep 0.1 &); done; echo up; sleep 100",
  ]);
  await sluice.printed("up");
  const guardian = await sluice.guardianPid;
  const zombies = () => execFileSync("ps", ["-o", "stat=", "--ppid", String(guardian)], { encoding: "utf8" });
  await eventually("the orphans are gone", () => zombies().trim().split("\n").length === 1);
  expect(zombies()).not.toContain("Z");
});

test("kill -9 of the guardian while the node still prepares: Sluice ends", async () => {
  await using sluice = new SluiceProcess(["--start-ms", "100000", "--", "sleep", "100"]);
  await eventually("the node starts", () => sluice.notes.includes("start"));
  process.kill(await sluice.guardianPid, "SIGKILL");
  expect(await sluice.ended()).toBe(1);
  expect(sluice.log.join()).toContain("SLU-6006");
  expect(sluice.notes).toEqual(["start", "stop", "status 1"]);
});

describe("the next start", () => {
  test("ends what an earlier life left, before the node starts", async () => {
    await using first = startShape("subprocess with close_fds");
    await beating(first);
    const guardian = await first.guardianPid;
    // A guardian that can't notice anything.
    process.kill(guardian, "SIGSTOP");
    first.child.kill("SIGKILL");
    await first.ended();
    expect(first.application.size).toBeGreaterThan(1);
    await using second = new SluiceProcess(["--", "sh", "-c", "exit 3"], { dir: first.dir });
    await eventually(
      "the second one starts its node",
      () => second.notes.filter((note) => note === "start").length === 2,
    );
    expect(first.application).toEqual(new Map());
    expect(isRunning(guardian)).toBe(false);
    expect(await second.ended()).toBe(3);
  });

  test("is refused while another Sluice is alive", async () => {
    await using first = new SluiceProcess(["--", "sleep", "100"]);
    await first.guardianPid;
    await using second = new SluiceProcess(["--", "true"], { dir: first.dir });
    expect(await second.ended()).toBe(1);
    expect(second.log.join()).toContain(`SLU-6004 ${first.dir} is looked after by process ${first.pid}`);
    expect(second.notes).toEqual(["start", "started", "status 1"]);
    expect(readFileSync(path.join(first.dir, "guardian.json"), "utf8")).toContain(`"pid":${first.pid},`);
  });
});
