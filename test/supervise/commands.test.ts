import { openSync, readFileSync, closeSync, writeFileSync, mkdtempSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { eventually, SluiceProcess } from "./support.ts";

test.each([
  [["true"], 0],
  [["sh", "-c", "exit 7"], 7],
  [["sh", "-c", "kill -KILL $$"], 137],
  [["sh", "-c", "kill -TERM $$"], 143],
])("%j: the status is the command's own", async (argv, status) => {
  await using sluice = new SluiceProcess(["--", ...argv]);
  expect(await sluice.ended()).toBe(status);
  expect(sluice.notes).toEqual(["start", "started", "stop", `status ${status}`]);
});

test("a command that isn't there, or can't be executed, ends the run as in a shell", async () => {
  await using missing = new SluiceProcess(["--", "no-such-command-here"]);
  await using refused = new SluiceProcess(["--", "/etc/passwd"]);
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-bad-"));
  writeFileSync(path.join(dir, "bad"), "#!/no/such/interpreter\n", { mode: 0o755 });
  await using interpreter = new SluiceProcess(["--", path.join(dir, "bad")]);
  expect(await missing.ended()).toBe(127);
  expect(missing.log.join()).toContain("SLU-6001");
  expect(missing.notes).toContain("stop");
  expect(await refused.ended()).toBe(126);
  expect(refused.log.join()).toContain("SLU-6002");
  expect(await interpreter.ended()).toBe(127);
  rmSync(dir, { recursive: true });
});

test("the command has its own standard streams, environment, words and session, and no descriptor of Sluice", async () => {
  const report = `
import os, sys, json
print(json.dumps({"files": [os.readlink(f"/proc/{os.getppid()}/fd/{n}") for n in os.listdir(f"/proc/{os.getppid()}/fd") if int(n) > 2], "argv": sys.argv[1:], "env": dict(os.environ),
  "leader": os.getsid(0) == os.getppid(), "in": sys.stdin.read(), "blocking": os.get_blocking(1)}))
print("to stderr", file=sys.stderr)`;
  await using sluice = new SluiceProcess(["--", "sh", "-c", 'python3 -c "$0" "$@"; exit $?', report, "a b", "", "$x"], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  sluice.child.stdin?.end("what stands in stdin");
  expect(await sluice.ended()).toBe(0);
  const seen = JSON.parse(sluice.stdout) as Record<string, unknown> & { env: Record<string, string> };
  expect(seen).toMatchObject({ argv: ["a b", "", "$x"], leader: true, in: "what stands in stdin", blocking: true });
  // What this test runner was given itself may be there, but nothing that Sluice opens.
  expect(seen["files"]).not.toContainEqual(expect.stringMatching(/^socket:|anon_inode|sluice/));
  expect(sluice.stderr).toBe("to stderr\n");
  const added = Object.keys(seen.env).filter((name) => !(name in process.env));
  expect(added.filter((name) => /^NODE|^SLUICE/.test(name))).toEqual([]);
  expect(seen.env["MARK"]).toBe(sluice.mark);
});

test("the limit of open files, the environment's of Sluice's own start", async () => {
  // What `bin/sluice` does, as process 1 or anywhere else.
  const own = 'ulimit -Sn 512; SLUICE_OPEN_FILES=512 NODE_COMPILE_CACHE=$HOME/$0/sluice/compiled "$@"; exit $?';
  const report = 'ulimit -Sn; echo "${SLUICE_OPEN_FILES-unset} ${NODE_COMPILE_CACHE-unset}"';
  await using wrapped = new SluiceProcess(["--", "sh", "-c", report], {
    via: ["sh", "-c", own, `cache-${process.pid}`],
  });
  await using bare = new SluiceProcess(["--", "sh", "-c", report], {
    via: ["sh", "-c", 'ulimit -Sn 600; NODE_COMPILE_CACHE=$HOME/$0 "$@"; exit $?', `cache-${process.pid}`],
  });
  await Promise.all([wrapped.ended(), bare.ended()]);
  rmSync(path.join(os.tmpdir(), `cache-${process.pid}`), { recursive: true, force: true });
  expect(wrapped.stdout).toBe("512\nunset unset\n");
  expect(bare.stdout).toBe(`600\nunset ${os.tmpdir()}/cache-${process.pid}\n`);
});

test("standard input may be closed", async () => {
  await using sluice = new SluiceProcess(["--", "sh", "-c", "readlink /proc/self/fd/0; cat"], {
    via: ["sh", "-c", 'exec "$@" <&-', "sh"],
  });
  expect(await sluice.ended()).toBe(0);
  expect(sluice.stdout).toBe("/dev/null\n");
});

test("output of a fast command goes to a file whole", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-out-"));
  const fd = openSync(path.join(dir, "out"), "w");
  await using sluice = new SluiceProcess(["--", "seq", "100000"], { stdio: ["ignore", fd, "ignore"] });
  expect(await sluice.ended()).toBe(0);
  closeSync(fd);
  expect(readFileSync(path.join(dir, "out"), "utf8")).toMatch(/^1\n[^]*\n100000\n$/);
  rmSync(dir, { recursive: true });
});

function list(...entries: unknown[]): string[] {
  return ["--exec", JSON.stringify(entries)];
}

test("waited commands run one after the other, those of another role not at all", async () => {
  await using sluice = new SluiceProcess(
    list(
      { cmd: "sh -c 'sleep 0.3; echo one'", wait: true, on: "primary" },
      { cmd: "echo replica", wait: true, on: "replica" },
      { cmd: "echo two", wait: true },
      "sh -c 'echo three; exit 4'",
    ),
  );
  expect(await sluice.ended()).toBe(4);
  expect(sluice.stdout).toBe("one\ntwo\nthree\n");
});

test("a waited command that fails ends the run with its status", async () => {
  await using sluice = new SluiceProcess(
    list(
      "sh -c 'trap \"echo ended; exit 0\" TERM; echo up; while :; do sleep 0.05; done'",
      {
        cmd: "sh -c 'sleep 0.5; exit 9'",
        wait: true,
      },
      "echo never",
    ),
  );
  expect(await sluice.ended()).toBe(9);
  expect(sluice.log.join()).toContain("SLU-6008");
  expect(sluice.stdout).toBe("up\nended\n");
});

test("the first long-running command that ends, ends the others and the run", async () => {
  await using sluice = new SluiceProcess(list("sleep 100", "sh -c 'sleep 0.3; exit 5'", "sleep 101"));
  expect(await sluice.ended()).toBe(5);
  expect(sluice.application.size).toBe(0);
});

test("a long-running command that ends while another is waited for ends the run", async () => {
  await using sluice = new SluiceProcess(list("sh -c 'exit 6'", { cmd: "sleep 100", wait: true }));
  expect(await sluice.ended()).toBe(6);
});

test("with only waited commands, or none, the run goes on until it is stopped", async () => {
  await using waited = new SluiceProcess(list({ cmd: "echo done", wait: true }));
  await waited.printed("done");
  await eventually("the command ended", () => waited.log.includes("command ended"));
  await using none = new SluiceProcess([]);
  await eventually("started", () => none.notes.includes("started"));
  for (const sluice of [waited, none]) {
    expect(sluice.child.exitCode).toBeNull();
    sluice.child.kill("SIGTERM");
    expect(await sluice.ended()).toBe(0);
    expect(sluice.notes.at(-2)).toBe("stop");
  }
});

test("the application does not start where the node must not", async () => {
  await using sluice = new SluiceProcess(["--start-fails", "--", "echo", "started"]);
  expect(await sluice.ended()).toBe(1);
  expect(sluice.stdout).toBe("");
  expect(sluice.notes).toEqual(["start", "stop", "status 1"]);
  expect(sluice.log).toEqual(["the store is out of reach"]);
});

test("the application does not start without a guardian that the next start can find", async () => {
  await using sluice = new SluiceProcess(["--guardian-file", "/dev/null/guardian.json", "--", "echo", "started"]);
  expect(await sluice.ended()).toBe(1);
  expect(sluice.stdout).toBe("");
  expect(sluice.log.join()).toContain("SLU-6007");
  expect(sluice.notes).toEqual(["status 1"]);
});

test("the directory of the guardian's file is made for this user alone", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-guardian-"));
  const state = path.join(dir, ".app.db-sluice");
  await using sluice = new SluiceProcess(["--guardian-file", path.join(state, "guardian.json"), "--", "true"]);
  expect(await sluice.ended()).toBe(0);
  expect(statSync(state).mode & 0o777).toBe(0o700);
  rmSync(dir, { recursive: true });
});

test("what is not in the store at the end is said; the status stays the command's", async () => {
  const sentence = "/data/app.db: 3 commits are not in the store";
  await using ran = new SluiceProcess(["--missing", sentence, "--", "true"]);
  await using none = new SluiceProcess(["--missing", sentence]);
  expect(await ran.ended()).toBe(0);
  expect(ran.log).toContain(`SLU-6009 ${sentence}`);
  await eventually("started", () => none.notes.includes("started"));
  none.child.kill("SIGTERM");
  expect(await none.ended()).toBe(1);
});

test("a node that can't go on ends the application", async () => {
  await using sluice = new SluiceProcess(["--fatal-after-ms", "1500", "--", "sleep", "100"]);
  expect(await sluice.ended()).toBe(1);
  expect(sluice.log).toContain("the store belongs to another writer");
  expect(sluice.notes).toContain("stop");
});

test("a change of the role stops what is for the other one only, and starts what is for the new one, waited ones once", async () => {
  const loop = (word: string): string => `sh -c "while :; do echo ${word}; sleep 0.1; done"`;
  const exec = [
    { cmd: "echo migrated", on: "primary", wait: true },
    { cmd: loop("replicating"), on: "replica" },
    { cmd: loop("leading"), on: "primary" },
    { cmd: loop("serving"), on: "any" },
  ];
  await using sluice = new SluiceProcess(["--role", "replica", "--exec", JSON.stringify(exec)]);
  await eventually("replica's", () => sluice.stdout.includes("replicating") && sluice.stdout.includes("serving"));
  expect(sluice.stdout).not.toMatch(/migrated|leading/);
  sluice.child.kill("SIGURG");
  await eventually("primary's", () => sluice.stdout.includes("leading"));
  expect(sluice.stdout.indexOf("migrated")).toBeLessThan(sluice.stdout.indexOf("leading"));
  const after = sluice.stdout.length;
  await eventually("both go on", () => /leading[^]*serving[^]*leading/.test(sluice.stdout.slice(after)));
  expect(sluice.stdout.slice(after)).not.toContain("replicating");
  sluice.child.kill("SIGURG");
  const back = sluice.stdout.length;
  await eventually("replica's again", () => sluice.stdout.slice(back).includes("replicating"));
  sluice.child.kill("SIGURG");
  const again = sluice.stdout.length;
  await eventually("primary's again", () => sluice.stdout.slice(again).includes("leading"));
  expect(sluice.stdout.match(/migrated/g)).toHaveLength(1);
  sluice.child.kill("SIGTERM");
  await sluice.ended();
});

test("a waited command that a change of the role has broken off runs again when its role comes back", async () => {
  const exec = [
    { cmd: "sh -c 'echo begun; sleep 2; echo migrated'", on: "primary", wait: true },
    { cmd: "sh -c 'echo serving; sleep 100'", on: "any" },
  ];
  await using sluice = new SluiceProcess(list(...exec));
  await sluice.printed("begun");
  sluice.child.kill("SIGURG");
  await sluice.printed("serving");
  expect(sluice.stdout).toBe("begun\nserving\n");
  sluice.child.kill("SIGURG");
  await eventually("migrated", () => sluice.stdout.includes("migrated"));
  expect(sluice.stdout).toBe("begun\nserving\nbegun\nmigrated\n");
  sluice.child.kill("SIGTERM");
  await sluice.ended();
});
