import { expect, test } from "vitest";
import { parsePositions } from "../../src/proxy/position-cookie.ts";
import { type App, Nodes, type TestNode } from "./nodes.ts";

const HANDOFFS = 15;

/** A counter of each client: POST adds one, GET reads. What a node shows is what it has applied. */
function ledger(): { readonly app: App; readonly total: () => number } {
  const entries: { readonly client: string; readonly position: bigint }[] = [];
  const app: App = (request, response, node) => {
    const client = request.url!.slice(1);
    const at = (): bigint => node.view.positions()[0]!.position;
    request.on("end", () => {
      // The work before the commit; the role may change meanwhile.
      setTimeout(() => {
        if (request.method === "POST") {
          try {
            node.view.cluster.commit(node.view, "app.db");
          } catch {
            response.writeHead(409, { "sluice-replay": "primary" }).end();
            return;
          }
          entries.push({ client, position: at() });
        }
        const seen = at();
        const count = entries.filter((entry) => entry.client === client && entry.position <= seen).length;
        response.end(String(count));
      }, 2);
    });
    request.resume();
  };
  return { app, total: () => entries.length };
}

test("handoffs under load of reads and writes on all nodes: nothing fails, nothing is stale, nothing is done twice", async () => {
  const { app, total } = ledger();
  await using nodes = await Nodes.start(3, { app, proxy: "durability: replica" });
  const state = { isOver: false };
  let acknowledged = 0;
  const failures: string[] = [];
  const client = async (name: string, first: number): Promise<void> => {
    let written = 0;
    let seen = "";
    for (let i = first; !state.isOver; i++) {
      const node: TestNode = nodes.all[i % 3]!;
      const isWrite = i % 2 === 0;
      const body = isWrite ? { body: "x".repeat(i % 4 === 0 ? 200_000 : 10) } : {};
      const headers = { "sluice-position": seen };
      const reply = await nodes.ask(node, isWrite ? "POST" : "GET", `/${name}`, { ...body, headers });
      if (isWrite) {
        written++;
        acknowledged++;
      }
      if (reply.status !== 200) failures.push(`${reply.status} ${reply.body}`);
      else if (Number(reply.body) !== written) failures.push(`${name} sees ${reply.body} of ${written}`);
      const position = reply.headers["sluice-position"];
      if (typeof position === "string") {
        expect(parsePositions(position).size).toBe(1);
        seen = position;
      }
    }
  };
  const clients = Array.from({ length: 12 }, (_, i) => client(`client${i}`, i));
  for (let i = 1; i <= HANDOFFS; i++) {
    await new Promise((resolve) => setTimeout(resolve, 30));
    const pause = nodes.all[(i - 1) % 3]!.door.pauseWrites();
    await pause.idle;
    await pause.released;
    nodes.cluster.promote(undefined);
    await new Promise((resolve) => setTimeout(resolve, 10));
    nodes.cluster.promote(nodes.all[i % 3]!.view);
    pause.resume();
  }
  state.isOver = true;
  await Promise.all(clients);
  expect(failures).toEqual([]);
  expect(acknowledged).toBeGreaterThan(50);
  expect(total()).toBe(acknowledged);
});
