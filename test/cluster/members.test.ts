import { expect, test } from "vitest";
import { chooseMembers, replicaDurable } from "../../src/cluster/members.ts";
import type { MemberCandidate } from "../../src/cluster/upstream.ts";

const at = (member: number, applied: bigint | undefined, lagMs = 0): MemberCandidate => ({ member, applied, lagMs });

test("what every named member has is durable; nothing beyond", () => {
  const candidates = [at(1, 10n), at(2, 8n), at(3, 20n)];
  expect(replicaDurable([[1, 2]], candidates, 5n)).toBe(8n);
  expect(replicaDurable([[1]], candidates, 5n)).toBe(10n);
  expect(replicaDurable([[1, 2], [3]], candidates, 5n)).toBe(8n);
});

test("where a record names nobody only the log counts", () => {
  const candidates = [at(1, 10n)];
  expect(replicaDurable([[]], candidates, 5n)).toBe(5n);
  expect(replicaDurable([[1], []], candidates, 5n)).toBe(5n);
  expect(replicaDurable([[], [1]], candidates, 5n)).toBe(5n);
});

test("a named member that is gone, or doesn't follow, holds everything back but the log", () => {
  expect(replicaDurable([[1, 2]], [at(1, 10n)], 5n)).toBe(5n);
  expect(replicaDurable([[1, 2]], [at(1, 10n), at(2, undefined)], 5n)).toBe(5n);
});

test("the closest three are named, none that is too far behind or doesn't follow", () => {
  const candidates = [at(9, 1n, 50), at(4, 1n, 5), at(3, 1n, 5), at(7, 1n, 0), at(1, undefined, 0), at(2, 1n, 6000)];
  expect(chooseMembers(candidates, 5_000)).toEqual([3, 4, 7]);
  expect(chooseMembers([], 5_000)).toEqual([]);
});
