import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { children } from "../../src/supervise/descendants.ts";
import { eventually, marked, SluiceProcess } from "./support.ts";

const UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/** Whether this user may make a pid namespace, as a container has. */
const mayUnshare = (() => {
  try {
    execFileSync(UNSHARE[0] ?? "", [...UNSHARE.slice(1), "true"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

test.skipIf(!mayUnshare)("Sluice as process 1: zombies go, SIGTERM stops it, a kill ends everything", async () => {
  const app =
    "for i in 1 2 3; do (sleep 0.1 &); done; echo up $$; trap 'echo term; exit 4' TERM; while :; do sleep 0.1; done";
  await using stopped = new SluiceProcess(["--", "sh", "-c", app], { via: UNSHARE });
  await stopped.printed("up");
  const sluice = [...marked(stopped.mark)].find(([, command]) => command.startsWith(process.execPath))?.[0] ?? 0;
  const [guardian = 0] = children(sluice);
  await eventually("only the command is left", () => children(guardian).length === 1);
  process.kill(sluice, "SIGTERM");
  expect(await stopped.ended()).toBe(4);
  expect(stopped.stdout).toContain("term");

  await using killed = new SluiceProcess(["--", "sh", "-c", app], { via: UNSHARE });
  await killed.printed("up");
  killed.child.kill("SIGKILL");
  await eventually("everything ends", () => marked(killed.mark).size === 0);
});
