import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { formatPosition, position } from "../../src/ltx/position.ts";
import {
  changed,
  formatPositions,
  merge,
  parsePositions,
  positionsOf,
  setCookie,
} from "../../src/proxy/position-cookie.ts";
import { Cluster } from "./cluster.ts";
import { Nodes } from "./nodes.ts";

let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
afterEach(async () => {
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

const at = (epoch: number, seq: number, db = "app.db"): string => `${db}:${formatPosition(position(epoch, seq))}`;
const cookieOf = (headers: Readonly<Record<string, string | string[] | undefined>>): string | undefined =>
  (headers["set-cookie"] as string[] | undefined)?.[0];

describe("a client that wrote", () => {
  test("gets its position as cookie and header, through whichever node", async () => {
    const nodes = await start(2);
    for (const [i, node] of [nodes.a, nodes.b].entries()) {
      const { headers } = await nodes.ask(node, "POST", "/");
      expect(headers["sluice-position"]).toBe(at(2, i + 1));
      expect(cookieOf(headers)).toBe(`Sluice-Position=${at(2, i + 1)}; Path=/; HttpOnly; SameSite=Lax`);
    }
  });

  test("on TLS gets a cookie for TLS alone, also through a replica", async () => {
    const nodes = await start(2);
    const { headers } = await nodes.ask(nodes.b, "POST", "/", { headers: { "x-forwarded-proto": "https" } });
    expect(cookieOf(headers)).toMatch(/; Secure$/);
  });

  test("in a GET gets it, too; one that only read gets none", async () => {
    const nodes = await start(2, {
      app: (request, response, node) => {
        if (request.url!.startsWith("/write")) node.view.cluster.commit(node.view, "app.db");
        if (request.url === "/write/public") response.setHeader("cache-control", "max-age=1, public");
        response.end();
      },
    });
    const has = async (target: string) => cookieOf((await nodes.ask(nodes.a, "GET", target)).headers) !== undefined;
    expect(await has("/read")).toBe(false);
    expect(await has("/write")).toBe(true);
    // It would be everybody's.
    expect(await has("/write/public")).toBe(false);
  });

  test("keeps what it knows of other databases", async () => {
    const nodes = await start(1, { cluster: new Cluster(["one.db", "x/two,+:%.db"]) });
    const first = (await nodes.ask(nodes.a, "POST", "/?db=one.db")).headers["sluice-position"] as string;
    expect(first).toBe(at(2, 1, "one.db"));
    const second = await nodes.ask(nodes.a, "POST", "/?db=x/two,+:%.db", {
      headers: { cookie: `a=b; Sluice-Position=${first}` },
    });
    expect(second.headers["sluice-position"]).toBe(`${first}+${at(2, 1, "x%2Ftwo%2C%2B%3A%25.db")}`);
  });

  test("that repeats a write whose answer was lost gets the position, though nothing is committed now", async () => {
    const nodes = await start(1, { app: (_, response) => response.end("already done") });
    nodes.cluster.commit(nodes.a.view, "app.db");
    expect((await nodes.ask(nodes.a, "POST", "/")).headers["sluice-position"]).toBe(at(2, 1));
  });

  test("waits for a database that isn't open yet to have one, for `read-timeout` at most", async () => {
    const nodes = await start(1, { app: (_, response) => response.end(), proxy: "read-timeout: 300ms" });
    const stand = (position: bigint): void => {
      nodes.cluster.tookOverAt.set("app.db", position);
      nodes.a.view.catchUp();
    };
    stand(0n);
    expect((await nodes.ask(nodes.a, "POST", "/")).headers).not.toHaveProperty("sluice-position");
    // Once: what takes longer, a store that is away, slows nobody down.
    const captures = nodes.a.view.captures;
    await nodes.ask(nodes.a, "POST", "/");
    expect(nodes.a.view.captures - captures).toBe(2);
    stand(6n);
    await nodes.ask(nodes.a, "POST", "/");
    stand(0n);
    const asked = nodes.ask(nodes.a, "POST", "/", { onSent: () => setTimeout(() => stand(7n), 30) });
    expect((await asked).headers["sluice-position"]).toBe("app.db:0000000000000007");
  });

  test("gets nothing with `read-your-writes: false`, nor waits", async () => {
    const nodes = await start(2, { proxy: "read-your-writes: false" });
    nodes.b.view.isBehind = true;
    const { headers } = await nodes.ask(nodes.a, "POST", "/");
    expect(headers).not.toHaveProperty("sluice-position");
    expect(headers).not.toHaveProperty("set-cookie");
    expect((await nodes.ask(nodes.b, "GET", "/", { headers: { "sluice-position": at(2, 1) } })).json.node).toBe("b");
  });
});

describe("a read with a position", () => {
  test.each(["cookie", "sluice-position"])("by %s waits until the replica is that far", async (name) => {
    const nodes = await start(2, { proxy: "read-timeout: 10s" });
    nodes.b.view.isBehind = true;
    const { headers } = await nodes.ask(nodes.a, "POST", "/");
    const seen = headers["sluice-position"] as string;
    const asked = nodes.ask(nodes.b, "GET", "/", {
      headers: { [name]: name === "cookie" ? `x=1; Sluice-Position=${seen}` : seen },
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(nodes.b.seen).toEqual([]);
    nodes.b.view.catchUp();
    expect((await asked).json.node).toBe("b");
  });

  test("goes to the primary after `read-timeout`", async () => {
    const nodes = await start(2, { proxy: "read-timeout: 50ms" });
    nodes.b.view.isBehind = true;
    const { headers } = await nodes.ask(nodes.a, "POST", "/");
    const reply = await nodes.ask(nodes.b, "GET", "/x", {
      headers: { "sluice-position": headers["sluice-position"] as string },
    });
    expect(reply.json).toMatchObject({ node: "a", method: "GET", url: "/x" });
    // It is a read there, too.
    expect(reply.headers).not.toHaveProperty("sluice-durable");
  });

  test("gets 503 when neither this node nor a primary is that far", async () => {
    const nodes = await start(2, { proxy: "read-timeout: 20ms\nprimary-timeout: 100ms" });
    nodes.b.view.isBehind = true;
    nodes.cluster.commit(nodes.a.view, "app.db");
    nodes.cluster.promote(undefined);
    const reply = await nodes.ask(nodes.b, "GET", "/", { headers: { "sluice-position": at(2, 1) } });
    expect([reply.status, reply.json.code]).toEqual([503, "SLU-7002"]);
    nodes.cluster.promote(nodes.b.view);
    const behind = await nodes.ask(nodes.b, "GET", "/", { headers: { "sluice-position": at(2, 1) } });
    expect([behind.status, behind.json.code]).toEqual([503, "SLU-7011"]);
    expect(nodes.b.seen).toEqual([]);
  });

  test("that was lost is answered at once, says so, and ends the cookie", async () => {
    const nodes = await start(2, { proxy: "read-timeout: 60s" });
    const { headers } = await nodes.ask(nodes.a, "POST", "/");
    nodes.cluster.promote(nodes.b.view, 1);
    for (const node of [nodes.a, nodes.b]) {
      const reply = await nodes.ask(node, "GET", "/", {
        headers: { cookie: `Sluice-Position=${headers["sluice-position"] as string}` },
      });
      expect(reply.json.node).toBe(node.view.name);
      expect(reply.headers["sluice-position-lost"]).toBe("1");
      expect(cookieOf(reply.headers)).toBe("Sluice-Position=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }
  });

  test("that was lost keeps the positions of other databases", async () => {
    const nodes = await start(2, { cluster: new Cluster(["one.db", "two.db"]) });
    for (const db of ["one.db", "two.db"]) nodes.cluster.commit(nodes.a.view, db);
    nodes.cluster.promote(nodes.b.view);
    const header = `${at(2, 9, "one.db")}+${at(2, 1, "two.db")}`;
    const reply = await nodes.ask(nodes.b, "GET", "/", { headers: { "sluice-position": header } });
    expect(reply.headers["sluice-position"]).toBe(at(2, 1, "two.db"));
  });

  test.each([
    ["an epoch that never was", at(999, 1)],
    ["a database that isn't here", at(1, 5, "other.db")],
    ["nonsense", "app.db:xyz"],
    ["too much", "a".repeat(5000)],
  ])("with %s is answered as if it had none", async (_, text) => {
    const nodes = await start(1, { proxy: "read-timeout: 60s" });
    const reply = await nodes.ask(nodes.a, "GET", "/", { headers: { "sluice-position": text } });
    expect(reply.status).toBe(200);
    expect(reply.headers).not.toHaveProperty("sluice-position-lost");
  });

  test("that nobody gave out doesn't hide a later one", async () => {
    const nodes = await start(1);
    const reply = await nodes.ask(nodes.a, "POST", "/", { headers: { cookie: `Sluice-Position=${at(999, 1)}` } });
    expect(reply.headers["sluice-position"]).toBe(at(2, 1));
  });

  test("of a write: the primary must contain it before its application is asked", async () => {
    const nodes = await start(1, { proxy: "read-timeout: 60s" });
    nodes.cluster.commit(nodes.a.view, "app.db");
    let asked = false;
    const wait = nodes.a.view.waitApplied.bind(nodes.a.view);
    nodes.a.view.waitApplied = (...args) => {
      asked = true;
      return wait(...args);
    };
    await nodes.ask(nodes.a, "POST", "/", { headers: { "sluice-position": at(2, 1) } });
    expect(asked).toBe(true);
  });
});

describe("positions as text", () => {
  const positions = fc
    .array(
      fc.tuple(
        fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      ),
    )
    .map((pairs) => new Map(pairs));

  test("come back as they were, in characters that cookies take", () => {
    fc.assert(
      fc.property(positions, (given) => {
        const text = formatPositions(given);
        expect(text).toMatch(/^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*$/);
        expect(text.length).toBeLessThanOrEqual(2048);
        const back = parsePositions(text);
        for (const [db, at] of back) expect(at).toBe(given.get(db));
        if (given.size < 5) expect(back.size).toBe(given.size);
      }),
    );
  });

  test("are merged to the higher ones, the newest last", () => {
    const [a, b] = [
      new Map([
        ["x", 5n],
        ["y", 1n],
      ]),
      new Map([
        ["x", 6n],
        ["y", 0n],
        ["z", 2n],
      ]),
    ];
    expect([...merge(a, b)]).toEqual([
      ["y", 1n],
      ["x", 6n],
      ["z", 2n],
    ]);
  });

  test("of too many databases, the last written stay", () => {
    const many = new Map(Array.from({ length: 100 }, (_, i) => [`${i}.db`, BigInt(i)]));
    expect([...parsePositions(formatPositions(many)).keys()]).toEqual(
      Array.from({ length: 24 }, (_, i) => `${i + 76}.db`),
    );
  });

  test("of cookie and header, the higher counts", () => {
    const text = (n: bigint): string => `a:${formatPosition(n)}`;
    expect(positionsOf(`b=1;Sluice-Position=${text(3n)};c=2`, text(2n)).get("a")).toBe(3n);
    expect(positionsOf(`NotSluice-Position=${text(3n)}`, undefined).size).toBe(0);
    expect(positionsOf(undefined, undefined).size).toBe(0);
  });

  test("that changed are found, also when databases come and go", () => {
    const list = (...pairs: [string, bigint][]) => pairs.map(([db, position]) => ({ db, position }));
    expect([...changed(list(["a", 1n], ["b", 1n]), list(["a", 1n], ["b", 2n]))]).toEqual([["b", 2n]]);
    expect([...changed(list(["a", 1n], ["b", 1n]), list(["b", 1n], ["c", 1n]))]).toEqual([["c", 1n]]);
  });

  test("in a cookie", () => {
    expect(setCookie("x", true)).toBe("Sluice-Position=x; Path=/; HttpOnly; SameSite=Lax; Secure");
  });
});
