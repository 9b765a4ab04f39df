/*
 * hold-port DEVICE: waits for a change of a serial port's modem lines, as programs do that watch an
 * uninterruptible power supply. While one waits, the kernel does not finish an unbind of the port's
 * driver: uart_wait_modem_status() holds the port, and serial_core_remove_one_port() (before 6.5
 * uart_remove_one_port()) waits until nobody does.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	int port = argc == 2 ? open(argv[1], O_RDWR | O_NOCTTY | O_NONBLOCK) : -1;

	if (port < 0 || ioctl(port, TIOCMIWAIT, TIOCM_RNG | TIOCM_DSR | TIOCM_CD | TIOCM_CTS) < 0) {
		perror("hold-port");
		return 1;
	}
	return 0;
}
