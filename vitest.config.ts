import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Much of what they do is waiting for processes: one more than the cores that are counted on.
    maxWorkers: 3,
  },
});
