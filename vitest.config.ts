import { defineConfig } from "vitest/config";

/** `npm run coverage` sets it: every process of the tests, Sluice's own too, leaves there what it ran. */
const coverage = process.env["NODE_V8_COVERAGE"] !== undefined;

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Much of what they do is waiting for processes: one more than the cores that are counted on.
    maxWorkers: 3,
    setupFiles: coverage ? ["test/coverage/take.ts"] : [],
    // Files as Node.js itself loads them, so that lines are counted alike in the tests' own processes and in those they start.
    experimental: { viteModuleRunner: !coverage },
  },
});
