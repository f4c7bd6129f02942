/** Codes SLU-6xxx: supervise. */
export const superviseCodes = {
  "SLU-6000": {
    title: "Internal error (supervise)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
  "SLU-6001": {
    title: "The command was not found",
    meaning:
      "The program named first in the command doesn't exist at its path or in any directory of PATH. Nothing of the command ran. As in a shell, the exit status is 127.",
    normal: "Never.",
    remedy:
      "Check the spelling, PATH and the image. Words are not read by a shell: for variables, pipes or `&&` write `sh -c '…'`.",
  },
  "SLU-6002": {
    title: "The command may not be executed",
    meaning:
      "The program was found, but the system refused to start it; the system's reason stands in the message. As in a shell, the exit status is 126.",
    normal: "Never.",
    remedy: "Make the file executable (`chmod +x`) for the user that runs Sluice, and see that its `#!` line is right.",
  },
  "SLU-6003": {
    title: "The command line can't be read",
    meaning:
      "An entry of `exec` is empty, or holds operators of a shell (`|`, `&&`, `>`, `;`, `*` …). Sluice splits commands into words, with quotes as in a shell, and starts them without a shell.",
    normal: "Never.",
    remedy: "Write `sh -c 'your command'` where a shell is meant, or put quotes around the character.",
  },
  "SLU-6004": {
    title: "Another Sluice runs here",
    meaning: "The process named in the message looks after the same databases and is alive. This one did not start.",
    normal:
      "When a second `sluice run` or `sluice replicate` is started with `--no-takeover`, or a second node of a cluster.",
    remedy: "Stop the other one first, give this one other databases, or let it take over (without `--no-takeover`).",
  },
  "SLU-6005": {
    title: "The application of an earlier run doesn't end",
    meaning:
      "An earlier Sluice died, and its guardian is still killing the application that it had started. Some process of it can't be killed: it belongs to another user, or waits for a device.",
    normal: "Never.",
    remedy:
      "Look at the processes named in the message (`ps -o pid,stat,user,wchan,args -p …`), end them, and start again.",
  },
  "SLU-6006": {
    title: "The guardian ended",
    meaning:
      "The small process between Sluice and the application was killed. Sluice ended the application, since nothing would end it if Sluice died now, appended what was left, and stopped.",
    normal: "When the system was out of memory, or somebody killed it by hand.",
    remedy:
      "Start Sluice again (a supervisor does it by itself). If it comes back, look for the out-of-memory killer in the system's log.",
  },
  "SLU-6007": {
    title: "The guardian did not start",
    meaning:
      "The small process between Sluice and the application could not be started. The application was not started.",
    normal: "Never.",
    remedy: "Look at the cause in the message: limits on processes, memory or open files are the usual ones.",
  },
  "SLU-6008": {
    title: "A command of the start sequence failed",
    meaning:
      "An `exec` entry with `wait: true` ended with the status in the message. The entries after it were not started.",
    normal: "Never.",
    remedy:
      "Look at what the command printed. Sluice ends with the command's status; what was committed until then was sent.",
  },
  "SLU-6009": {
    title: "Stopped before everything was in the store",
    meaning:
      "At the stop, the last commits of a database could not be appended to the store within the limit. They are safe in the database on this disk, and in Sluice's directory beside it, but not in the store yet.",
    normal: "When the store is out of reach.",
    remedy: "Start Sluice again with the same disk: it sends them first. Don't delete this disk before that.",
  },
  "SLU-6010": {
    title: "The application did not end in time",
    meaning: "The application was asked to end and was still there when the time for it was over. Sluice killed it.",
    normal: "When requests or jobs run longer than the time for stopping.",
    remedy: "Give it more time, or find out what it waits for.",
  },
  "SLU-6012": {
    title: "The Sluice that runs here can't be taken over",
    meaning:
      "Another Sluice on this host looks after the same database, and a second one that was to take it over from it doesn't fit: it is a node of a cluster, has another format of state, or another store for this database. The first one goes on as before; this one has touched nothing.",
    normal: "In a rolling deploy that changes the store, or to a version with another format of state.",
    remedy:
      "Stop the other one first, and then start this one. Where both should overlap, give them the same store in the configuration.",
  },
  "SLU-6013": {
    title: "The other Sluice of a database ended",
    meaning:
      "A Sluice that takes a database over, or has taken it over, ended while it was asked something. Whoever is left looks after the database.",
    normal: "At the end of every overlap.",
    remedy: "Nothing.",
  },
  "SLU-6011": {
    title: "Open files could not be handed to the guardian",
    meaning:
      "The guardian must hold some open files together with Sluice, and the system refused to pass one; its reason stands in the message.",
    normal: "Never.",
    remedy: "Raise the limit of open files (`ulimit -n`) for Sluice.",
  },
} as const;
