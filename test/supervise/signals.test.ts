import { execFileSync } from "node:child_process";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { eventually, isRunning, marked, SluiceProcess } from "./support.ts";

/** Prints the name of each signal that it gets, and ends with 5 half a second after SIGTERM or SIGINT. */
const PRINTS = [
  "python3",
  "-c",
  `
import os, signal, threading, time
def got(number, frame):
    os.write(1, (signal.Signals(number).name + "\\n").encode())
    if number in (signal.SIGTERM, signal.SIGINT): threading.Timer(0.5, lambda: os._exit(5)).start()
for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "TTIN", "TTOU", "CONT"):
    signal.signal(getattr(signal, "SIG" + name), got)
print("up", flush=True)
while True: time.sleep(0.02)`,
];

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s: the command gets it once, is waited for, then the node drains",
  async (name) => {
    await using sluice = new SluiceProcess(["--", ...PRINTS]);
    await sluice.printed("up");
    sluice.child.kill(name);
    // The same one, from a wrapper of the same terminal.
    sluice.child.kill(name);
    expect(await sluice.ended()).toBe(5);
    expect(sluice.stdout).toBe(`up\n${name}\n`);
    expect(sluice.notes).toEqual(["start", "started", "stop", "status 5"]);
  },
);

test("other signals are the application's", async () => {
  await using sluice = new SluiceProcess(["--", ...PRINTS]);
  await sluice.printed("up");
  const names = ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU"] as const;
  for (const name of names) {
    sluice.child.kill(name);
    await sluice.printed(name);
  }
  expect(sluice.stdout).toBe(`up\n${names.join("\n")}\n`);
  sluice.child.kill("SIGTERM");
  expect(await sluice.ended()).toBe(5);
});

test("a second signal ends Sluice at once, and with it the application, without a drain", async () => {
  await using sluice = new SluiceProcess(["--", "sh", "-c", "trap '' TERM INT; echo up; while :; do sleep 0.1; done"]);
  await sluice.printed("up");
  sluice.child.kill("SIGTERM");
  await delay(400);
  expect(sluice.child.exitCode).toBeNull();
  sluice.child.kill("SIGINT");
  expect(await sluice.ended()).toBe(130);
  expect(sluice.notes).toEqual(["start", "started", "status 130"]);
  await eventually("everything ends", () => marked(sluice.mark).size === 0);
});

test("what does not end in time is killed", async () => {
  const app = "trap '' TERM; echo up; while :; do sleep 0.1; done";
  await using sluice = new SluiceProcess(["--stop-limit-ms", "700", "--", "sh", "-c", app]);
  await sluice.printed("up");
  sluice.child.kill("SIGTERM");
  expect(await sluice.ended()).toBe(137);
  expect(sluice.log.join()).toContain("SLU-6010");
  expect(sluice.notes).toContain("stop");
});

test("what a wrapper leaves behind when it is stopped gets its own SIGTERM", async () => {
  const app = "trap 'sleep 0.3; echo ended; exit 0' TERM; echo up; while :; do sleep 0.05; done";
  await using sluice = new SluiceProcess(["--", "sh", "-c", '"$@"; true', "sh", "sh", "-c", app]);
  await sluice.printed("up");
  sluice.child.kill("SIGTERM");
  expect(await sluice.ended()).toBe(143);
  expect(sluice.stdout).toBe("up\nended\n");
});

test("a signal while the node starts: the application is never started", async () => {
  await using sluice = new SluiceProcess(["--start-ms", "20000", "--", "echo", "up"]);
  await eventually("start", () => sluice.notes.includes("start"));
  sluice.child.kill("SIGTERM");
  expect(await sluice.ended()).toBe(143);
  expect(sluice.stdout).toBe("");
  expect(sluice.notes).toEqual(["start", "stop", "status 143"]);
});

test("SIGTSTP stops the application with Sluice, SIGCONT lets both go on", async () => {
  await using sluice = new SluiceProcess(["--", ...PRINTS]);
  await sluice.printed("up");
  const [app] = [...sluice.application.keys()];
  const state = (pid: number) => execFileSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" })[0];
  sluice.child.kill("SIGTSTP");
  await eventually("both stop", () => state(sluice.pid) === "T" && state(app ?? 0) === "T");
  sluice.child.kill("SIGCONT");
  await sluice.printed("SIGCONT");
  expect(state(app ?? 0)).not.toBe("T");
});

test("a terminal's Ctrl-C reaches the command once", async () => {
  const pty = path.join(import.meta.dirname, "terminal.py");
  await using sluice = new SluiceProcess(["--", ...PRINTS], { via: ["python3", pty] });
  expect({ status: await sluice.ended(), log: sluice.log, errors: sluice.stderr, out: sluice.stdout }).toMatchObject({
    status: 5,
  });
  expect(sluice.stdout.match(/SIG\w+/g)).toEqual(["SIGINT"]);
  expect(sluice.notes).toContain("stop");
});

test("the guardian leaves signals to Sluice", async () => {
  await using sluice = new SluiceProcess(["--", ...PRINTS]);
  await sluice.printed("up");
  const guardian = await sluice.guardianPid;
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"] as const) process.kill(guardian, name);
  await delay(300);
  expect(isRunning(guardian)).toBe(true);
  expect(sluice.stdout).toBe("up\n");
});
