"""Numbers of system calls, on x86-64 and on 64-bit ARM. Data only; `seccomp.py` uses it.

From Linux's `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`, as of
6.1. Each is written `name x86-64/ARM`, with `-` where an architecture has no such call.
"""

from __future__ import annotations

from typing import Final

NEWEST: Final = 450
"""The last of 6.1; those after it have one number everywhere, and are not there for a worker. Every
library still runs on a kernel of that age, and so does without."""

REFUSED: Final = """
# Connections of any kind: descriptors of sockets are neither made nor used.
socket 41/198, socketpair 53/199, connect 42/203, bind 49/200, listen 50/201, accept 43/202,
accept4 288/242, sendto 44/206, sendmsg 46/211, sendmmsg 307/269, recvfrom 45/207,
recvmsg 47/212, recvmmsg 299/243, shutdown 48/210,
# Other programs and processes. Threads are made by `clone`, which is looked at.
fork 57/-, vfork 58/-, execve 59/221, execveat 322/281,
# Looking into, steering and hindering other processes of the same user.
ptrace 101/117, process_vm_readv 310/270, process_vm_writev 311/271, process_madvise 440/440,
process_mrelease 448/448, kcmp 312/272, pidfd_open 434/434, pidfd_getfd 438/438,
pidfd_send_signal 424/424, rt_sigqueueinfo 129/138, rt_tgsigqueueinfo 297/240,
get_robust_list 274/100, move_pages 279/239, migrate_pages 256/238, setpriority 141/140,
ioprio_set 251/30, sched_setscheduler 144/119, sched_setparam 142/118, sched_setattr 314/274,
sched_setaffinity 203/122, setrlimit 160/164,
# What Landlock does not guard: modes, owners, times and attributes of files of the same user, and
# their length before Linux 6.2.
chmod 90/-, fchmod 91/52, fchmodat 268/53, chown 92/-, fchown 93/55, lchown 94/-,
fchownat 260/54, utime 132/-, utimes 235/-, futimesat 261/-, utimensat 280/88, setxattr 188/5,
lsetxattr 189/6, fsetxattr 190/7, removexattr 197/14, lremovexattr 198/15, fremovexattr 199/16,
truncate 76/45, mknod 133/-, mknodat 259/33,
# Ways to files around their paths, and watching others use theirs.
name_to_handle_at 303/264, open_by_handle_at 304/265, inotify_init 253/-, inotify_init1 294/26,
inotify_add_watch 254/27, fanotify_init 300/262, fanotify_mark 301/263, quotactl 179/60,
quotactl_fd 443/443,
# Memory and queues that processes share by number or name.
shmget 29/194, shmat 30/196, shmctl 31/195, shmdt 67/197, semget 64/190, semop 65/193,
semtimedop 220/192, semctl 66/191, msgget 68/186, msgsnd 69/189, msgrcv 70/188, msgctl 71/187,
mq_open 240/180, mq_unlink 241/181,
# Other roots, mounts and namespaces.
mount 165/40, umount2 166/39, pivot_root 155/41, chroot 161/51, setns 308/268, unshare 272/97,
open_tree 428/428, move_mount 429/429, fsopen 430/430, fsconfig 431/431, fsmount 432/432,
fspick 433/433, mount_setattr 442/442, swapon 167/224, swapoff 168/225,
# Becoming another user, or leaving the group that is ended together.
setuid 105/146, setgid 106/144, setreuid 113/145, setregid 114/143, setresuid 117/147,
setresgid 119/149, setfsuid 122/151, setfsgid 123/152, setgroups 116/159, capset 126/91,
setsid 112/157, setpgid 109/154, personality 135/92,
# Large or old parts of the kernel that have let many through, and that no reader needs.
bpf 321/280, perf_event_open 298/241, userfaultfd 323/282, io_uring_setup 425/425,
io_uring_enter 426/426, io_uring_register 427/427, io_setup 206/0, io_submit 209/2,
seccomp 317/277, landlock_create_ruleset 444/444, landlock_add_rule 445/445,
landlock_restrict_self 446/446, add_key 248/217, request_key 249/218, keyctl 250/219,
memfd_secret 447/447, vmsplice 278/75, tee 276/77, set_mempolicy 238/237, mbind 237/235,
set_mempolicy_home_node 450/450, iopl 172/-, ioperm 173/-, modify_ldt 154/-, vhangup 153/58,
uselib 134/-, sysfs 139/-, _sysctl 156/-, ustat 136/-, lookup_dcookie 212/18, nfsservctl 180/42,
# The machine itself.
init_module 175/105, finit_module 313/273, delete_module 176/106, kexec_load 246/104,
kexec_file_load 320/294, reboot 169/142, syslog 103/116, acct 163/89, settimeofday 164/170,
clock_settime 227/112, adjtimex 159/171, clock_adjtime 305/266, sethostname 170/161,
setdomainname 171/162,
"""
CHECKED: Final = """
clone 56/220, clone3 435/435, fcntl 72/25, kill 62/129, prctl 157/167, prlimit64 302/261,
tgkill 234/131, tkill 200/130
"""
"""Allowed for some arguments."""


def numbers(table: str, column: int) -> dict[str, int]:
    """Read one architecture's numbers, by name, out of a table: column 0 is x86-64, 1 is ARM."""
    found: dict[str, int] = {}
    for line in table.splitlines():
        for entry in filter(str.strip, [] if line.startswith("#") else line.split(",")):
            name, both = entry.split()
            number = both.split("/")[column]
            if number != "-":
                found[name] = int(number)
    return found
