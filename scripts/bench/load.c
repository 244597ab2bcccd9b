/*
 * The load of `npm run bench -- relay` and `redirect`: backends and clients that cost less than the subject between
 * them, which no Node program would. Compiled when the benchmark runs; prints one JSON object.
 *
 * load echo|sink|packets HOST PORT                  backends: bytes back, bytes counted, packets back
 * load connect HOST PORT CONCURRENT SECONDS         connect, one byte there and back, close; then PORTS: to as many
 *   [PORTS [SOURCE]]                                ports from PORT on, in turn, and the first of 200 source addresses
 * load pingpong HOST PORT CONNECTIONS SECONDS       one byte there and back
 * load bulk HOST PORT CONNECTIONS SECONDS           as many bytes as possible; the backend reports how many arrived
 * load flood HOST PORT FLOWS INFLIGHT SECONDS SIZE  packets there and back, INFLIGHT of each flow at a time
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 256
#define MAX_SAMPLES 8000000
#define CHUNK (1 << 17)
#define BATCH 64

static const char *host;
static int port;
static int ports = 1;
static uint32_t first_source = 0x7f000002;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in address(void) {
  struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &result.sin_addr);
  return result;
}

static void option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

static int listener(int flags) {
  int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  struct sockaddr_in own = address();
  option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(fd, (void *)&own, sizeof own)) die("bind");
  listen(fd, 4096);
  return fd;
}

static int connected(int type) {
  int fd = socket(AF_INET, type, 0);
  struct sockaddr_in peer = address();
  if (connect(fd, (void *)&peer, sizeof peer)) die("connect");
  return fd;
}

static void watch(int epoll, int fd, uint32_t events, uint32_t data, int operation) {
  struct epoll_event event = {.events = events, .data.u32 = data};
  epoll_ctl(epoll, operation, fd, &event);
}

/* Round trips of the run, in seconds. */
static float *samples;
static long sampled;

static void sample(double seconds) {
  if (sampled < MAX_SAMPLES) samples[sampled++] = seconds;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

static double percentile(double share) { return sampled ? samples[(long)((sampled - 1) * share)] * 1e6 : 0; }

/* The rate, and this process's processor time in microseconds. */
static void print_round_trips(long done, double seconds, long failed) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  qsort(samples, sampled, sizeof *samples, ascending);
  printf("{\"rate\":%.0f,\"p50\":%.1f,\"p99\":%.1f,\"failed\":%ld,\"done\":%ld,\"micros\":%.0f}\n", done / seconds,
         percentile(0.5), percentile(0.99), failed, done, used.tv_sec * 1e6 + used.tv_nsec * 1e-3);
}

static void echo(void) {
  static char bytes[65536];
  struct epoll_event events[MAX_EVENTS];
  int listening = listener(SOCK_NONBLOCK), epoll = epoll_create1(0);
  watch(epoll, listening, EPOLLIN, listening, EPOLL_CTL_ADD);
  for (;;) {
    int count = epoll_wait(epoll, events, MAX_EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.u32, accepted;
      if (fd == listening) {
        while ((accepted = accept4(listening, 0, 0, SOCK_NONBLOCK)) >= 0) {
          option(accepted, IPPROTO_TCP, TCP_NODELAY, 1);
          watch(epoll, accepted, EPOLLIN, accepted, EPOLL_CTL_ADD);
        }
        continue;
      }
      ssize_t received = recv(fd, bytes, sizeof bytes, 0);
      if (received > 0) send(fd, bytes, received, MSG_NOSIGNAL);
      else if (received == 0 || errno != EAGAIN) close(fd);
    }
  }
}

static void *swallow(void *argument) {
  int fd = (intptr_t)argument;
  char *bytes = malloc(CHUNK);
  uint64_t total = 0;
  ssize_t received;
  while ((received = recv(fd, bytes, CHUNK, 0)) > 0) total += received;
  send(fd, &total, sizeof total, MSG_NOSIGNAL);
  close(fd);
  free(bytes);
  return 0;
}

static void sink(void) {
  int listening = listener(0);
  for (;;) {
    int fd = accept(listening, 0, 0);
    pthread_t thread;
    if (fd < 0) continue;
    pthread_create(&thread, 0, swallow, (void *)(intptr_t)fd);
    pthread_detach(thread);
  }
}

static void packets(void) {
  static char bytes[BATCH][2048];
  struct sockaddr_in own = address(), from[BATCH];
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  option(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
  if (bind(fd, (void *)&own, sizeof own)) die("bind");
  for (;;) {
    for (int i = 0; i < BATCH; i++) {
      vectors[i] = (struct iovec){bytes[i], sizeof bytes[i]};
      messages[i].msg_hdr = (struct msghdr){.msg_name = from + i, .msg_namelen = sizeof *from, .msg_iov = vectors + i, .msg_iovlen = 1};
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, 0);
    for (int i = 0; i < count; i++) vectors[i].iov_len = messages[i].msg_len;
    for (int sent = 0, more; sent < count; sent += more)
      if ((more = sendmmsg(fd, messages + sent, count - sent, 0)) <= 0) break;
  }
}

/* 200 sources, 127.0.0.2 to .201 by default, so that ports in TIME_WAIT do not run out. */
static int begin_connection(int epoll, double *begun) {
  static unsigned next;
  struct sockaddr_in peer = address();
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(first_source + (getpid() + next++) % 200)};
  peer.sin_port = htons(port + next % ports);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  bind(fd, (void *)&own, sizeof own);
  begun[fd] = now();
  if (connect(fd, (void *)&peer, sizeof peer) && errno != EINPROGRESS) {
    close(fd);
    return 0;
  }
  int sent = send(fd, "x", 1, MSG_NOSIGNAL) == 1;
  watch(epoll, fd, sent ? EPOLLIN : EPOLLIN | EPOLLOUT, fd, EPOLL_CTL_ADD);
  return 1;
}

static void connect_and_close(int concurrent, double seconds) {
  static double begun[65536];
  struct epoll_event events[MAX_EVENTS];
  int epoll = epoll_create1(0);
  long done = 0, failed = 0;
  double start = now(), time;
  for (int i = 0; i < concurrent; i++) begin_connection(epoll, begun);
  while ((time = now()) < start + seconds) {
    int count = epoll_wait(epoll, events, MAX_EVENTS, 100);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.u32;
      char byte;
      if ((events[i].events & EPOLLOUT) && !(events[i].events & (EPOLLERR | EPOLLHUP | EPOLLIN))) {
        send(fd, "x", 1, MSG_NOSIGNAL);
        watch(epoll, fd, EPOLLIN, fd, EPOLL_CTL_MOD);
        continue;
      }
      ssize_t received = recv(fd, &byte, 1, 0);
      if (received < 0 && errno == EAGAIN) continue;
      if (received == 1) {
        done++;
        sample(now() - begun[fd]);
      } else failed++;
      close(fd);
      if (!begin_connection(epoll, begun)) failed++;
    }
  }
  print_round_trips(done, time - start, failed);
}

static void pingpong(int connections, double seconds) {
  static double begun[65536];
  struct epoll_event events[MAX_EVENTS];
  int epoll = epoll_create1(0), fds[4096];
  for (int i = 0; i < connections; i++) {
    fds[i] = connected(SOCK_STREAM);
    option(fds[i], IPPROTO_TCP, TCP_NODELAY, 1);
    watch(epoll, fds[i], EPOLLIN, fds[i], EPOLL_CTL_ADD);
  }
  usleep(50000);
  double start = now(), time;
  for (int i = 0; i < connections; i++) {
    begun[fds[i]] = now();
    send(fds[i], "x", 1, 0);
  }
  while ((time = now()) < start + seconds) {
    int count = epoll_wait(epoll, events, MAX_EVENTS, 100);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.u32;
      char byte;
      if (recv(fd, &byte, 1, 0) != 1) die("a byte did not come back");
      double heard = now();
      sample(heard - begun[fd]);
      begun[fd] = heard;
      send(fd, "x", 1, 0);
    }
  }
  print_round_trips(sampled, time - start, 0);
}

struct stream {
  double seconds, took;
  uint64_t sent, arrived;
};

static void *push(void *argument) {
  struct stream *stream = argument;
  char *bytes = malloc(CHUNK);
  memset(bytes, 5, CHUNK);
  int fd = connected(SOCK_STREAM);
  double start = now();
  while (now() - start < stream->seconds) {
    ssize_t sent = send(fd, bytes, CHUNK, MSG_NOSIGNAL);
    if (sent <= 0) break;
    stream->sent += sent;
  }
  shutdown(fd, SHUT_WR);
  if (recv(fd, &stream->arrived, sizeof stream->arrived, MSG_WAITALL) != sizeof stream->arrived) stream->arrived = 0;
  stream->took = now() - start;
  close(fd);
  free(bytes);
  return 0;
}

static void bulk(int connections, double seconds) {
  struct stream streams[256] = {0};
  pthread_t threads[256];
  double took = 0, bytes = 0;
  int failed = 0;
  for (int i = 0; i < connections; i++) {
    streams[i].seconds = seconds;
    pthread_create(threads + i, 0, push, streams + i);
  }
  for (int i = 0; i < connections; i++) {
    pthread_join(threads[i], 0);
    bytes += streams[i].arrived;
    if (streams[i].arrived != streams[i].sent) failed++;
    if (streams[i].took > took) took = streams[i].took;
  }
  printf("{\"rate\":%.3f,\"gigabytes\":%.3f,\"failed\":%d}\n", bytes * 8e-9 / took, bytes * 1e-9, failed);
}

static void flood(int flows, int in_flight, double seconds, int size) {
  static char bytes[BATCH][2048];
  struct epoll_event events[MAX_EVENTS];
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  int epoll = epoll_create1(0), fds[4096];
  double heard[4096], checked = 0, start, time;
  long received = 0, sent = 0;
  memset(messages, 0, sizeof messages);
  for (int i = 0; i < BATCH; i++) {
    vectors[i] = (struct iovec){bytes[i], size};
    messages[i].msg_hdr.msg_iov = vectors + i;
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  for (int i = 0; i < flows; i++) {
    fds[i] = connected(SOCK_DGRAM | SOCK_NONBLOCK);
    option(fds[i], SOL_SOCKET, SO_RCVBUF, 1 << 20);
    watch(epoll, fds[i], EPOLLIN, i, EPOLL_CTL_ADD);
  }
  start = time = now();
  for (int i = 0; i < flows; i++) {
    int count = sendmmsg(fds[i], messages, in_flight < BATCH ? in_flight : BATCH, 0);
    if (count > 0) sent += count;
    heard[i] = start;
  }
  while ((time = now()) < start + seconds) {
    int count = epoll_wait(epoll, events, MAX_EVENTS, 20);
    for (int j = 0; j < count; j++) {
      int i = events[j].data.u32;
      for (int k = 0; k < BATCH; k++) vectors[k].iov_len = sizeof bytes[k];
      int got = recvmmsg(fds[i], messages, BATCH, 0, 0);
      if (got <= 0) continue;
      received += got;
      heard[i] = time;
      for (int k = 0; k < BATCH; k++) vectors[k].iov_len = size;
      int more = sendmmsg(fds[i], messages, got, 0);
      if (more > 0) sent += more;
    }
    if (time - checked < 0.05) continue;
    checked = time;
    for (int k = 0; k < BATCH; k++) vectors[k].iov_len = size;
    for (int i = 0; i < flows; i++) {
      if (time - heard[i] < 0.2) continue;
      heard[i] = time;
      int more = sendmmsg(fds[i], messages, in_flight < BATCH ? in_flight : BATCH, 0);
      if (more > 0) sent += more;
    }
  }
  printf("{\"rate\":%.0f,\"failed\":0,\"lost\":%.4f}\n", received / (time - start), (double)(sent - received) / (sent ? sent : 1));
}

int main(int count, char **words) {
  if (count < 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  const char *what = words[1];
  host = words[2];
  port = atoi(words[3]);
  samples = malloc(sizeof *samples * MAX_SAMPLES);
#define number(index) (count > (index) ? atof(words[index]) : 0)
  if (!strcmp(what, "echo")) echo();
  else if (!strcmp(what, "sink")) sink();
  else if (!strcmp(what, "packets")) packets();
  else if (!strcmp(what, "connect")) {
    if (count > 6) ports = atoi(words[6]);
    if (count > 7) first_source = ntohl(inet_addr(words[7]));
    connect_and_close(number(4), number(5));
  }
  else if (!strcmp(what, "pingpong")) pingpong(number(4), number(5));
  else if (!strcmp(what, "bulk")) bulk(number(4), number(5));
  else if (!strcmp(what, "flood")) flood(number(4), number(5), number(6), number(7));
  else return 2;
  return 0;
}
