import { expect, test } from "vitest";
import { ServedNode } from "../../src/cli/node-view.ts";
import type { Node } from "../../src/cluster/node.ts";

test("what is wrong is said at the front door, and not with whose database", () => {
  const databases = [
    { name: "tenants/good.db", state: "protected" },
    { name: "tenants/jane.db", state: "failed" },
  ];
  expect(new ServedNode({ databases } as unknown as Node, "one", 1).trouble()).toBe("a database is failed");
});
