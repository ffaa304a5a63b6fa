/* Appends the lines of a file to a log at full speed, as a program that nobody here controls would: one write() a line
 * with O_APPEND, and no lock. A line is marked in a file of its own once its write has finished. Usage: LOG LINES MARKS
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "expected LOG LINES MARKS, found %d arguments\n", count - 1);
        return 2;
    }
    int log = open(arguments[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    FILE *lines = fopen(arguments[2], "r");
    int marks = open(arguments[3], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (log < 0 || lines == NULL || marks < 0) {
        perror("opening the log, the lines or the marks");
        return 1;
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, lines)) > 0)
        if (write(log, line, length) != length || write(marks, line, length) != length) {
            perror("writing a line");
            return 1;
        }
    free(line);
    fclose(lines);
    return 0;
}
