import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Nodes } from "./nodes.ts";

let nodes: Nodes;
beforeEach(() => {
  nodes = new Nodes();
});
afterEach(() => nodes[Symbol.asyncDispose]());

const names = ["a", "b", "c"] as const;
const patient = { timeout: 60_000, interval: 50 };

/** Notes what it does; where the file `hang` is, the first one to see it stays in the middle of its transaction. */
const MIGRATE = `
import os, sqlite3, sys, time
def note(what):
    with open("notes", "a") as notes: notes.write(f"{sys.argv[1]} {what}\\n")
os.chdir(os.path.dirname(sys.argv[0]))
note("begins")
db = sqlite3.connect(sys.argv[2], timeout=10, isolation_level=None)
for s in ["begin immediate", "create table if not exists m(node)", "insert into m values('" + sys.argv[1] + "')"]: db.execute(s)
if os.path.exists("hang"):
    os.remove("hang")
    note("hangs")
    time.sleep(1000)
db.execute("commit")
note("ends")
`;
const SERVE = `
import os, sys, time
os.chdir(os.path.dirname(sys.argv[0]))
with open("notes", "a") as notes: notes.write(f"{sys.argv[1]} serves\\n")
time.sleep(1000)
`;

/** What the commands of all nodes have noted, in order. */
function notes(what = ""): string[] {
  if (!existsSync(nodes.at("notes"))) return [];
  const lines = readFileSync(nodes.at("notes"), "utf8").trim().split("\n");
  return lines.filter((line) => line.endsWith(what));
}

async function startAll(): Promise<void> {
  writeFileSync(nodes.at("migrate.py"), MIGRATE);
  writeFileSync(nodes.at("serve.py"), SERVE);
  await Promise.all(
    names.map((name) =>
      nodes.start(name, {
        lease: "{ type: store, ttl: 2s }",
        lines: [
          "exec:",
          `  - { cmd: "python3 ${nodes.at("migrate.py")} ${name} ${nodes.db(name)}", on: primary, wait: true }`,
          `  - { cmd: "python3 ${nodes.at("serve.py")} ${name}" }`,
        ],
      }),
    ),
  );
}

/** Whose migration a node's database has. */
const migrated = (name: string): Promise<string> => nodes.sql(name, "select node from m").catch(() => "");

test("of three nodes that start at once one migrates, once, before its application starts", async () => {
  await startAll();
  await expect.poll(() => notes("serves").length, patient).toBe(3);
  const [migrator] = notes("begins").map((line) => line[0]!);
  expect(notes().filter((line) => !line.endsWith("serves"))).toEqual([`${migrator} begins`, `${migrator} ends`]);
  expect(notes().indexOf(`${migrator} ends`)).toBeLessThan(notes().indexOf(`${migrator} serves`));
  for (const name of names) await expect.poll(() => migrated(name), patient).toBe(`[('${migrator}',)]`);
});

test("a primary that dies in the middle of the migration leaves nothing of it; the next one migrates", async () => {
  writeFileSync(nodes.at("hang"), "");
  await startAll();
  await expect.poll(() => notes("hangs").length, patient).toBe(1);
  const [first] = notes("hangs").map((line) => line[0]!);
  nodes.kill(first!);
  await nodes.over(first!);
  await expect.poll(() => notes("ends").length, patient).toBe(1);
  const [second] = notes("ends").map((line) => line[0]!);
  expect(second).not.toBe(first);
  expect(notes(`${first} serves`)).toEqual([]);
  expect(notes("begins")).toEqual([`${first} begins`, `${second} begins`]);
  for (const name of names.filter((name) => name !== first)) {
    await expect.poll(() => migrated(name), patient).toBe(`[('${second}',)]`);
  }
});
