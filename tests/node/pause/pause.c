// Holds the namespaces of a pod: waits for a signal that ends it, and reaps what its containers leave behind.
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  sigset_t awaited;
  int signal;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGINT);
  sigaddset(&awaited, SIGCHLD);
  // Blocked signals stay pending until they are waited for, so none is missed, and there is no handler.
  if (sigprocmask(SIG_BLOCK, &awaited, 0)) return 1;
  while (!sigwait(&awaited, &signal)) {
    if (signal != SIGCHLD) return 0;
    while (waitpid(-1, 0, WNOHANG) > 0) {
    }
  }
  return 1;
}
