import path from "node:path";
import { root } from "../../e2e/site.ts";
import { peers } from "../../peers/peers.ts";

/** An application that keeps entries (`POST /entries`, `GET /entries/KEY`) in one table. */
export interface Application {
  /** Lines of `exec`, in YAML's flow style. */
  readonly exec: (db: string, port: number) => readonly string[];
  readonly env: (db: string) => NodeJS.ProcessEnv;
  readonly table: string;
}

export const applications: Readonly<Record<"ledger" | "django", Application>> = {
  ledger: {
    exec: (db, port) => [
      `{ cmd: "${process.execPath} ${path.join(root, "src/cli/demo/application.ts")} ${db} ${port}" }`,
    ],
    env: () => ({}),
    table: "entry",
  },
  django: {
    exec: (db, port) => {
      const bind = `--bind 127.0.0.1:${port} --workers 2 --worker-tmp-dir ${path.dirname(db)} --graceful-timeout 5`;
      return [
        `{ cmd: "${peers.django} manage.py migrate --noinput", on: primary, wait: true }`,
        `{ cmd: "${peers.django} -m gunicorn mysite.wsgi ${bind}" }`,
      ];
    },
    env: (db) => ({
      DATABASE_PATH: db,
      ALLOWED_HOSTS: "*",
      PYTHONPATH: path.join(root, "integrations/django/src"),
      PYTHONDONTWRITEBYTECODE: "1",
    }),
    table: "ledger_entry",
  },
};
