import { afterEach, describe, expect, test } from "vitest";
import { Nodes } from "./nodes.ts";

let nodes: Nodes;
afterEach(async () => {
  await nodes[Symbol.asyncDispose]();
});

describe("a replica's front door", () => {
  test.each(["GET", "HEAD", "OPTIONS"])("has %s answered by its own application", async (method) => {
    nodes = await Nodes.start(2, {
      app: (_, response, node) => response.setHeader("x-node", node.view.name).end(),
    });
    const reply = await nodes.ask(nodes.b, method, "/x?y=1");
    expect(reply.status).toBe(200);
    expect(reply.headers["x-node"]).toBe("b");
    expect(nodes.a.seen).toEqual([]);
  });

  test.each(["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])("forwards %s to the primary", async (method) => {
    nodes = await Nodes.start(2);
    const reply = await nodes.ask(nodes.b, method, "/x?y=1", { body: "hello", headers: { "x-own": "1" } });
    expect(reply.status).toBe(200);
    expect(reply.json).toMatchObject({ node: "a", method, url: "/x?y=1", body: "hello" });
    expect(reply.json.headers["x-own"]).toBe("1");
    expect(nodes.b.seen).toEqual([]);
  });

  test("forwards a write without a body, over and over on one connection", async () => {
    nodes = await Nodes.start(2);
    for (let i = 0; i < 20; i++) expect((await nodes.ask(nodes.b, "POST", `/${i}`)).json.node).toBe("a");
    expect(nodes.a.seen).toHaveLength(20);
  });
});
